"""The machinery that any stage uses: configuration, shards, fingerprints, models, corpora."""

import os
from pathlib import Path

from pipeline.compiled import compiled_folder

# This counts only where it is set before numba is imported.
os.environ.setdefault("NUMBA_CACHE_DIR", str(compiled_folder(Path(__file__).parent.parent)))
