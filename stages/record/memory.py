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


class Room:
    """Memory for what is found of a batch's sequences, used by one module after the other."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], list[npt.NDArray[Any]]] = {}

    def found(self, sequences: int, seq_len: int, units: int) -> tuple[npt.NDArray[Any], ...]:
        """Arrays as in `measure`, of sequences of at most `seq_len` tokens; full of what was found last."""
        key = (seq_len, units)
        if key not in self._found or len(self._found[key][0]) < sequences:
            extremes, nonfinite = ((sequences, 3, units), np.float32), ((sequences,), np.int64)
            candidates, numbers = ((sequences, 2, units), np.int64), ((sequences, 2), np.int64)
            columns = ((sequences, units, seq_len), np.float32)
            self._found[key] = zeros([extremes, candidates, numbers, columns, nonfinite])
        return tuple(array[:sequences] for array in self._found[key])
