"""Recording on a CPU, by kernels that numba compiles and keeps on disk.

Numba compiles a function anew where its own file has changed, but not where a function or a number that it takes from another
file has. So every state of the sources has a cache folder of its own, unless the user names one.
"""

import os
from hashlib import sha256
from pathlib import Path

import numba
import torch

SOURCES = Path(__file__).parents[2]
"""stages/record, where all is that the kernels are made of."""


def cache_folder(sources: Path = SOURCES) -> Path:
    """The folder for what is compiled of some sources as they are."""
    files = [(path, path.stat()) for path in sorted(sources.rglob("*.py"))]
    states = [(str(path.relative_to(sources)), state.st_mtime_ns, state.st_size) for path, state in files]
    return sources / "__pycache__" / f"numba-{sha256(repr(states).encode()).hexdigest()[:16]}"


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(cache_folder())


def use_torch_threads() -> None:
    """Let kernels run on as many threads as torch uses."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
