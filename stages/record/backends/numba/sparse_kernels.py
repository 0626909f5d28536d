# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Statistics and top-k from the activations of a batch that are not zero, in numba.

The activations are sorted by unit and then by position, so those of a unit on one sequence are a run. Threads split the work
by units.

Shapes: N activations, B sequences, T tokens, U units.
"""

import numpy as np
from numba import njit, prange

from stages.record.backends.numba.numba_measure import (
    FIRING,
    FOUND,
    LARGEST,
    NEGATED,
    NONFINITE,
    add_exactly,
    histogram_bin,
    read_finite,
)
from stages.record.backends.numba.numba_top_k import Slots, beats, insert
from stages.record.recorded_batch import GRID


@njit(cache=True, nogil=True, parallel=True)
def sum_up(
    starts, positions, values, bits, rows, tokens, threshold,
    totals, rests, minimum, maximum, above, nonfinite, entries, histogram, token_sums,
):  # fmt: skip
    """Add the activations of a batch to the running sums.

    Args:
        starts: (U + 1,) where the activations of each unit start, and the end.
        positions, values, bits: (N,) position in the flattened batch, activation, and its bits as int32.
        rows: (B * T,) row in the token table of each position, or -1.
        tokens: T.
        totals, rests, ...: as in SparseSums.
    """
    for unit in prange(starts.size - 1):
        found, powers = np.empty(FOUND, np.float32), np.empty(4)
        i = starts[unit]
        while i < starts[unit + 1]:
            end = end_of_run(i, starts[unit + 1], positions, tokens)
            read_finite(values, range(i, end), threshold, found, powers)
            add_exactly(totals[:, unit], rests[:, unit], powers)
            minimum[unit], maximum[unit] = min(minimum[unit], -found[NEGATED]), max(maximum[unit], found[LARGEST])
            above[unit] += np.int64(found[FIRING])
            nonfinite[unit] += np.int64(found[NONFINITE])
            entries[unit] += end - i
            for k in range(i, end):
                if rows[positions[k]] >= 0:
                    token_sums[rows[positions[k]], unit] += (np.float64(values[k]) + GRID) - GRID
                if np.isfinite(values[k]):
                    histogram[unit, histogram_bin(bits[k])] += 1
            i = end


@njit(cache=True, nogil=True)
def end_of_run(i, last, positions, tokens):
    """Where the run of the i-th activation ends."""
    stop = (positions[i] // tokens + 1) * tokens
    while i < last and positions[i] < stop:
        i += 1
    return i


@njit(cache=True, nogil=True, parallel=True)
def keep_firing(
    starts, positions, values, sign, counted, seq_ids, splits, all_keys, slot_starts, distinct,
    top_values, ids, keys, vectors, worst_values, worst_ids,
):  # fmt: skip
    """Insert the sequences of a batch on which a unit fires and that belong to its top-k.

    Args:
        starts, positions, values: as in `sum_up`.
        sign: 1 for the polarity +, -1 for -.
        counted, seq_ids, splits, all_keys: of the batch.
        slot_starts, distinct, top_values, ids, keys, vectors, worst_values, worst_ids: as in `numba_top_k.keep_top_k`.
    """
    tokens = counted.shape[1]
    for unit in prange(starts.size - 1):
        slots = Slots(top_values, ids, keys, vectors, worst_values, worst_ids)
        i = starts[unit]
        while i < starts[unit + 1]:
            end = end_of_run(i, starts[unit + 1], positions, tokens)
            best, place = peak_of_run(values, i, end, sign)
            b = positions[i] // tokens
            split = splits[b]
            if best > 0 and beats(best, seq_ids[b], worst_values[split, unit], worst_ids[split, unit]):
                key = all_keys[b, positions[place] % tokens]
                slot = insert(unit, best, seq_ids[b], key, split, slot_starts, distinct, slots)
                if slot >= 0:
                    for t in range(tokens):
                        vectors[unit, slot, t] = 0 if counted[b, t] else np.nan
                    for k in range(i, end):
                        vectors[unit, slot, positions[k] % tokens] = values[k]
            i = end


@njit(cache=True, nogil=True)
def peak_of_run(values, start, end, sign):
    """The largest finite activation of a run in a polarity, -inf without any, and where it first occurs."""
    best, place = np.float32(-np.inf), start
    for k in range(start, end):
        value = values[k] * sign
        if np.isfinite(value) and value > best:
            best, place = value, k
    return best, place
