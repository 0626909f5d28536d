# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Brings histograms, strongest sequences and token sums of a module's units up to date with a batch, in numba.

Units do not depend on each other, so threads share them out, and the tokens for the token sums. Histograms are counted in 16 bits,
which are moved to larger counts before they could overflow.
"""

import numpy as np
from numba import njit

from stages.record.histogram import BINS, OFFSET, SHIFT
from stages.record.reading import LARGEST, NEGATED, SUB
from stages.record.tokens import GRID_BITS
from stages.record.winners import by_unit, keep_top

CHUNK = 64
"""Positions whose bins are noted before they are counted."""
COUNTED = 64
"""Units whose histograms stay in the innermost cache while they are counted."""
FULL = 2**16 - 1
"""Tokens that can be counted in 16 bits."""
I32, F32, ONE16 = np.int32, np.float32, np.uint16(1)
LAST = I32(BINS // 2 - 1)
ABOVE_ZERO = I32(BINS // 2)
MAGNITUDE = I32(0x7FFFFFFF)
FIRST = I32(OFFSET)
SHIFT32 = I32(SHIFT)
SIGN = I32(31)
GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
"""Adding and taking away this float64 rounds to a multiple of 2**-GRID_BITS."""


@njit(cache=True, nogil=True)
def histogram_bin(bits):
    """The histogram's bin of a float32 by its bits (see `histogram`)."""
    magnitude = I32(I32((bits & MAGNITUDE) >> SHIFT32) - FIRST)
    magnitude = magnitude if magnitude > I32(0) else I32(0)
    magnitude = magnitude if magnitude < LAST else LAST
    return I32(ABOVE_ZERO + I32(magnitude ^ I32(bits >> SIGN)))


@njit(cache=True, nogil=True)
def find_bins(bits, bins):
    """Histogram bins of one row of activations."""
    for u in range(bits.size):
        bins[u] = np.uint8(histogram_bin(bits[u]))


@njit(cache=True, nogil=True)
def count_bins(bins, histogram):
    """Count one row of U bins in the (U, STRIDE) histograms."""
    for u in range(histogram.shape[0]):
        histogram[u, bins[u]] += ONE16


@njit(cache=True, nogil=True)
def count_sequence(bits, at, start, stop, histogram, bins):
    """Count the activations of the units start..stop at the positions `at` of a (T, U) sequence in their histograms."""
    for begin in range(0, at.size, CHUNK):
        rows = at[begin : begin + CHUNK]
        for i in range(rows.size):
            find_bins(bits[rows[i], start:stop], bins[i])
        for first in range(0, stop - start, COUNTED):
            last = min(first + COUNTED, stop - start)
            for i in range(rows.size):
                count_bins(bins[i, first:last], histogram[start + first : start + last])


@njit(cache=True, nogil=True)
def make_room(fast, slow, waiting, coming):
    """Empty the 16-bit counts of some units before they could overflow. Returns the tokens in them, with those coming."""
    if waiting + coming <= FULL:
        return waiting + coming
    for u in range(fast.shape[0]):
        for k in range(BINS):
            slow[u, k] += fast[u, k]
            fast[u, k] = 0
    return coming


@njit(cache=True, nogil=True)
def leave_out_of_histogram(sequence, bits, at, start, stop, histogram):
    """Take back what is not finite of the units start..stop at the positions `at` of a (T, U) sequence."""
    for t in at:
        for u in range(start, stop):
            if not np.isfinite(sequence[t, u]):
                histogram[u, histogram_bin(bits[t, u])] -= ONE16


@njit(cache=True, nogil=True)
def settle(values, bits, batch, first, last, distinct, slots, counts, tops, found, pending):
    """Bring the histograms and strongest sequences of the units first..last up to date with a (B, T, U) batch.

    Args:
        values: the activations.
        bits: the same memory as int32.
        batch: seq_ids, splits, counted, binned, keys, places and place_starts of `Batch`.
        slots, distinct: as in `keep_top`.
        counts: fast counts and histogram (see numba_sums).
        tops, found: as in `measure`.
        pending: tokens in the fast counts so far.
    """
    _, _, _, binned, _, places, starts = batch
    _, candidates, numbers, _, nonfinite = found
    bins = np.empty((CHUNK, SUB), np.uint8)
    for start in range(first, last, SUB):
        stop, waiting = min(start + SUB, last), pending
        for b in np.flatnonzero(binned):
            at = places[starts[b] : starts[b + 1]]
            waiting = make_room(counts[0][start:stop], counts[1][start:stop], waiting, at.size)
            count_sequence(bits[b], at, start, stop, counts[0], bins)
            if nonfinite[b]:
                leave_out_of_histogram(values[b], bits[b], at, start, stop, counts[0])
    for p in (NEGATED, LARGEST):
        if tops[p][0].shape[1]:
            order = by_unit(candidates[:, p], numbers[:, p], first, last)
            keep_top(values.shape[2], batch, p, found, slots, distinct, tops[p], order)


@njit(cache=True, nogil=True)
def on_grid(x):
    """A float32 as a float64, rounded to a multiple of 2**-GRID_BITS."""
    return (np.float64(x) + GRID) - GRID


@njit(cache=True, nogil=True)
def add_four(first, second, third, fourth, target):
    for u in range(target.size):
        target[u] += (on_grid(first[u]) + on_grid(second[u])) + (on_grid(third[u]) + on_grid(fourth[u]))


@njit(cache=True, nogil=True)
def add_two(first, second, target):
    for u in range(target.size):
        target[u] += on_grid(first[u]) + on_grid(second[u])


@njit(cache=True, nogil=True)
def add_one(row, target):
    for u in range(target.size):
        target[u] += on_grid(row[u])


@njit(cache=True, nogil=True)
def add_tokens(rows, order, starts, table_rows, token_sums):
    """Add the activations of each token's occurrences to its row of the (V, U) sums, which the fewer times are loaded and stored
    the more occurrences are added at once; no sum is rounded (see `tokens`), so how they are grouped does not matter.

    Args:
        rows: (N, U) activations of the N positions of a batch.
        order: positions that count, those of the same token together.
        starts: where in `order` each of the batch's distinct tokens starts; one more than distinct tokens.
        table_rows: the row of `token_sums` of each distinct token.
    """
    for i in range(table_rows.size):
        target, j, end = token_sums[table_rows[i]], starts[i], starts[i + 1]
        while j < end:
            if end - j >= 4:
                add_four(rows[order[j]], rows[order[j + 1]], rows[order[j + 2]], rows[order[j + 3]], target)
                j += 4
            elif end - j >= 2:
                add_two(rows[order[j]], rows[order[j + 1]], target)
                j += 2
            else:
                add_one(rows[order[j]], target)
                j += 1
