"""The machinery that any stage uses: configuration, shards, fingerprints, models, corpora."""

import os
from pathlib import Path

from pipeline.compiled import compiled_folder

# All of these count only where they are said before torch and numba are imported.
os.environ.setdefault(
    "OMP_WAIT_POLICY", "PASSIVE"
)  # threads that wait sleep and do not spin, which leaves the cores to the recorder
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # tensors lie in large pages, which are found faster
os.environ.setdefault("NUMBA_CACHE_DIR", str(compiled_folder(Path(__file__).parent.parent)))
