"""Memory for the state of a recorder: zeroed, there from the start, in large pages where the system has them.

Gigabytes are touched here and there. With pages of 4 KiB that are made when they are first touched, making and finding them takes
longer than the arithmetic.
"""

import contextlib
import mmap
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

ALIGNED = 64
"""Bytes of a cache line."""
LARGE = 2**21
"""Bytes of a large page; less is not worth one."""
POPULATE = 23
"""madvise's MADV_POPULATE_WRITE, which Python does not name: make the pages now (Linux 5.14)."""


def zeros(shapes: Sequence[tuple[tuple[int, ...], npt.DTypeLike]]) -> list[npt.NDArray[Any]]:
    """Arrays of some shapes and types, full of zeros, that lie one behind the other in memory.

    Raises:
        MemoryError: there is not so much memory.
    """
    sizes = [prod(shape) * np.dtype(kind).itemsize for shape, kind in shapes]
    starts = np.concatenate([[0], np.cumsum([-(-size // ALIGNED) * ALIGNED for size in sizes])]).tolist()
    block = _block(max(starts[-1], 1))
    return [
        np.frombuffer(block, kind, prod(shape), start).reshape(shape)
        for (shape, kind), start in zip(shapes, starts[:-1], strict=True)
    ]


def _block(size: int) -> Any:
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return bytearray(size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    with contextlib.suppress(OSError):  # an older system makes them when they are touched
        block.madvise(POPULATE)
    return block
