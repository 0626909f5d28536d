"""Recording on a CPU, by kernels that numba compiles and keeps on disk.

Numba recompiles a function when its own file changes, but not when a function or a constant that it imports from another file
changes. So each state of the sources has its own cache folder. NUMBA_CACHE_DIR overrides it.
"""

import os
from hashlib import sha256
from pathlib import Path

import numba

SOURCES = Path(__file__).parents[2]
"""stages/record, from which alone kernels import."""
STATE = sha256()
for path in sorted(SOURCES.rglob("*.py")):
    STATE.update(repr((str(path.relative_to(SOURCES)), path.stat().st_mtime_ns, path.stat().st_size)).encode())
CACHE = SOURCES / "__pycache__" / f"numba-{STATE.hexdigest()[:16]}"

numba.config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR", str(CACHE))
