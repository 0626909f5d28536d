# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""What the sequences of a batch tell of a module's units, in numba.

Sequences do not depend on each other, so threads share them out: whole rows of activations are read faster than parts of
them. Each thread has running sums of its own. What may change the strongest sequences of a unit is noted here, and
settled by `kernel`.
"""

import numpy as np
from numba import njit

from pipeline.subjects.fast_activations import finish_rows
from stages.record.reading import FIRING, LARGEST, NEGATED, SUB, all_finite, leave_out_nonfinite, read_sequence
from stages.record.winners import find_beaten, gather


@njit(cache=True, nogil=True)
def add_exactly(total, rest, value):
    """Add U float64 to the running pairs `total` + `rest` (two-sum)."""
    for u in range(total.size):
        new = total[u] + value[u]
        back = new - total[u]
        rest[u] += (total[u] - (new - back)) + (value[u] - back)
        total[u] = new


@njit(cache=True, nogil=True)
def add_sequence(extremes, power, sums):
    """Add what was read of a sequence to the running sums of U units."""
    total, rest, minimum, maximum, above, _ = sums
    for p in range(4):
        add_exactly(total[p], rest[p], power[p])
    negated, high, number = extremes[NEGATED], extremes[LARGEST], extremes[FIRING]
    for u in range(minimum.size):
        minimum[u] = -negated[u] if -negated[u] < minimum[u] else minimum[u]
        maximum[u] = high[u] if high[u] > maximum[u] else maximum[u]
        above[u] += np.int64(np.int32(number[u]))


@njit(cache=True, nogil=True)
def set_aside(sequence, at, high, split, seq_id, top, candidates, columns, chosen):
    """Note the units whose sequence might be kept, and copy their activations while they are in the cache, as far as there is room.

    Args:
        sequence: (T, U) activations.
        at: (N,) positions that count.
        high: (U,) largest activations in the polarity.
        top: as in `winners`, as it was before this batch: what does not beat its worst sequence never will.
        candidates: (U,) for the units, rising.
        columns: (A, T) for the activations of the first A of them at the positions that count.
        chosen: (SUB + 1,) to work in.

    Returns:
        The number of candidates.
    """
    found = 0
    for start in range(0, high.size, SUB):
        count = find_beaten(start, high[start : start + SUB], seq_id, split, top, chosen)
        for i in chosen[:count]:
            if found < columns.shape[0]:
                gather(sequence, at, start + i, columns[found])
            candidates[found] = start + i
            found += 1
    return found


@njit(cache=True, nogil=True)
def measure(values, others, activation, batch, first, last, threshold, tops, sums, found):
    """Find what the sequences first..last of a (B, T, U) batch tell.

    Args:
        values: the activations.
        others: (B, T, U) what they are to be multiplied by, or (B, T, 0).
        activation: a number of `fast_activations`, to put act(values) * others into `values` beforehand; -1 to leave them.
        batch: seq_ids, splits, counted, binned, keys, places and place_starts of `Batch`.
        tops: those of the polarities - and + (see `winners`), without units where not recorded.
        sums: of this thread, total and rest of the power sums, (4, U) each, and minimum, maximum, tokens above the threshold and tokens
            that are not finite, (U,) each.
        found: (B, 3, U) by NEGATED, LARGEST and FIRING; by the first two the candidates (B, 2, U), their numbers (B, 2) and their
            columns (B, 2, A, T or more), see `set_aside`; and (B,) the number of units that have activations that are not finite.
    """
    seq_ids, splits, _, _, _, places, starts = batch
    extremes, candidates, numbers, columns, nonfinite = found
    units = values.shape[2]
    flat, chosen = values.reshape(values.size), np.empty(SUB + 1, np.int64)
    power = np.empty((4, units))
    for b in range(first, last):
        if activation >= 0:
            finish_rows(activation, values[b], others[b])
        at = places[starts[b] : starts[b + 1]]
        read_sequence(flat, b * values.shape[1] * units, at, extremes[b], power, threshold)
        nonfinite[b] = 0
        for u in range(units if all_finite(power[1]) else 0, units):
            if not np.isfinite(power[1, u]):
                sums[5][u] += leave_out_nonfinite(values[b], at, u, extremes[b], power, threshold)
                nonfinite[b] += 1
        add_sequence(extremes[b], power, sums)
        for p in (NEGATED, LARGEST):
            top, own = tops[p], columns[b, p]
            if top[0].shape[1]:
                high, some = extremes[b, p], candidates[b, p]
                numbers[b, p] = set_aside(values[b], at, high, splits[b], seq_ids[b], top, some, own, chosen)
