# mypy: disable-error-code="no-untyped-def"
"""Activation functions of sparse coders that give what is not zero at once, in numba, for activations on a CPU.

Rows of (N, U) pre-activations are compared BLOCK at a time, which the compiler vectorises; only blocks that hold something
are looked at one by one. NaN counts as something, so that it is not lost.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

BLOCK = 64
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]
I64 = np.int64
F32 = np.float32


def above_threshold(before: npt.NDArray[np.float32], threshold: npt.NDArray[np.float32]) -> Found:
    """Rows, units and values of what lies above the (U,) thresholds, by row and unit."""
    counts = np.empty((before.shape[0], -(-before.shape[1] // BLOCK)), np.int64)
    count_blocks(before, threshold, counts)
    found = _room(int(counts.sum()))
    fill_blocks(before, threshold, counts, *found)
    return found


def largest(before: npt.NDArray[np.float32], k: int) -> Found:
    """Rows, units and values of the k largest of each row that are above 0, by row and unit; of equals the first ones."""
    units = np.empty((before.shape[0], k), np.int64)
    counts = np.empty(before.shape[0], np.int64)
    choose_largest(before, units, counts)
    found = _room(int(counts.sum()))
    fill_chosen(before, units, counts, *found)
    return found


def _room(count: int) -> Found:
    return np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.float32)


@njit(cache=True, nogil=True)
def count_blocks(before, threshold, counts):
    """Count what is above its threshold in each block of each row."""
    for row in range(before.shape[0]):
        values = before[row]
        for block in range(counts.shape[1]):
            start = block * BLOCK
            part, limit = values[start : start + BLOCK], threshold[start : start + BLOCK]
            count = np.int32(0)
            for u in range(part.size):
                count += np.int32(not (part[u] <= limit[u]))
            counts[row, block] = count


@njit(cache=True, nogil=True)
def fill_blocks(before, threshold, counts, rows, units, values):
    """Write down what `count_blocks` has counted."""
    place = 0
    for row in range(before.shape[0]):
        for block in range(counts.shape[1]):
            if counts[row, block] == 0:
                continue
            for u in range(block * BLOCK, min((block + 1) * BLOCK, before.shape[1])):
                if not (before[row, u] <= threshold[u]):
                    rows[place], units[place], values[place] = row, u, before[row, u]
                    place += 1


@njit(cache=True, nogil=True)
def sink(keys, chosen):
    """Restore the heap whose root was replaced: the smallest key on top, of equal keys the last unit."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= keys.size:
            return
        right = child + 1
        if right < keys.size and (
            keys[right] < keys[child] or (keys[right] == keys[child] and chosen[right] > chosen[child])
        ):
            child = right
        if keys[parent] < keys[child] or (keys[parent] == keys[child] and chosen[parent] >= chosen[child]):
            return
        keys[parent], keys[child] = keys[child], keys[parent]
        chosen[parent], chosen[child] = chosen[child], chosen[parent]
        parent = child


@njit(cache=True, nogil=True)
def choose_largest(before, units, counts):
    """The units of the k largest values above 0 of each row, rising, in (N, k), and how many there are."""
    keys, chosen = np.empty(units.shape[1], F32), np.empty(units.shape[1], I64)
    beyond = before.shape[1]
    for row in range(before.shape[0]):
        keys[:], chosen[:] = F32(0), beyond
        values = before[row]
        for start in range(0, beyond, BLOCK):
            part, least, count = values[start : start + BLOCK], keys[0], np.int32(0)
            for u in range(part.size):
                count += np.int32(not (part[u] <= least))
            if count == 0:
                continue
            for u in range(part.size):
                key = F32(np.inf) if np.isnan(part[u]) else part[u]
                if key > keys[0]:
                    keys[0], chosen[0] = key, start + u
                    sink(keys, chosen)
        chosen.sort()
        units[row] = chosen
        counts[row] = np.searchsorted(chosen, beyond)


@njit(cache=True, nogil=True)
def fill_chosen(before, chosen, counts, rows, units, values):
    """Write down what `choose_largest` has chosen."""
    place = 0
    for row in range(before.shape[0]):
        for i in range(counts[row]):
            unit = chosen[row, i]
            rows[place], units[place], values[place] = row, unit, before[row, unit]
            place += 1
