"""Recording on a CPU, by kernels that numba compiles and keeps on disk.

Numba recompiles a function when its own file changes, but not when a function or a constant that it imports from another file
changes. So each state of the sources has its own cache folder. NUMBA_CACHE_DIR overrides it.
"""

import os
from hashlib import sha256
from pathlib import Path

import numba
import torch

SOURCES = Path(__file__).parents[2]
"""stages/record, from which alone kernels import."""


def cache_folder(sources: Path = SOURCES) -> Path:
    """The cache folder for the present state of some sources."""
    files = [(path, path.stat()) for path in sorted(sources.rglob("*.py"))]
    states = [(str(path.relative_to(sources)), state.st_mtime_ns, state.st_size) for path, state in files]
    return sources / "__pycache__" / f"numba-{sha256(repr(states).encode()).hexdigest()[:16]}"


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(cache_folder())


def use_torch_threads() -> None:
    """Run kernels on as many threads as torch uses."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
