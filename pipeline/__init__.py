"""The machinery that any stage uses: configuration, shards, fingerprints, models, corpora."""

import os
from pathlib import Path

from pipeline.compiled import compiled_folder

# Both count only where they are set before torch and numba are imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: spinning ones take the cores from others
os.environ.setdefault("NUMBA_CACHE_DIR", str(compiled_folder(Path(__file__).parent.parent)))
