# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""What the sequences of a batch tell of a module's units, in numba.

Sequences do not depend on each other, so threads share them out: whole rows of activations are read faster than parts of
them. Each thread has running sums of its own. What may change the strongest sequences of a unit is noted here, and
settled by `kernel`.
"""

import numpy as np
from numba import njit

from stages.record.reading import (
    FIRING,
    LARGEST,
    NEGATED,
    SUB,
    U64,
    all_finite,
    four,
    leave_out_nonfinite,
    read_sequence,
)
from stages.record.winners import TILE, find_beaten

FEW = 3
"""Units of a tile that are copied one by one."""


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
def copy_rows(flat, rows, units, columns, start, length):
    """Copy some rows of activations, of some units, to columns.

    Args:
        flat: the activations of a batch.
        rows: a tuple of where in `flat` the first unit lies in each row.
        columns: those of a batch, one behind the other.
        start: where in `columns` the first row of the first unit lies.
        length: of a column.
    """
    for u in range(units):
        i = start + u * length
        for row in rows:
            columns[i] = flat[row + u]
            i += U64(1)


@njit(cache=True, nogil=True)
def copy_columns(flat, origin, width, at, units, columns, start, length):
    """Copy the activations of some units at the positions `at` of a sequence.

    Args:
        flat: the activations of a batch.
        origin: where in them the first unit of the sequence lies.
        columns, start, length: as in `copy_rows`.
    """
    r = 0
    while r < at.size:
        if r + 8 <= at.size:
            rows = four(at, r, origin, width) + four(at, r + 4, origin, width)
            copy_rows(flat, rows, units, columns, start + U64(r), length)
            r += 8
        else:
            copy_rows(flat, (origin + U64(at[r]) * width,), units, columns, start + U64(r), length)
            r += 1


@njit(cache=True, nogil=True)
def copy_column(flat, origin, width, at, columns, start):
    """Copy the activations of one unit, as in `copy_columns`."""
    for r in range(at.size):
        columns[start + U64(r)] = flat[origin + U64(at[r]) * width]


@njit(cache=True, nogil=True)
def copy_wanted(flat, origin, width, at, wanted, columns, start, length):
    """Copy the activations of the wanted units while they are in the cache: tile by tile, as units of a tile share cache lines.

    Args:
        wanted: whether each of the units from the first on is wanted.
    """
    for first in range(0, wanted.size, TILE):
        last = min(first + TILE, wanted.size)
        number = wanted[first:last].sum()
        if number > FEW:
            at_first = start + U64(first) * length
            copy_columns(flat, origin + U64(first), width, at, U64(last - first), columns, at_first, length)
        elif number:
            for i in range(first, last):
                if wanted[i]:
                    copy_column(flat, origin + U64(i), width, at, columns, start + U64(i) * length)


@njit(cache=True, nogil=True)
def set_aside(flat, b, rows, at, extremes, split, seq_id, tops, candidates, numbers, columns, chosen):
    """Note the units whose sequence might be kept, and copy their activations while they are in the cache.

    Args:
        flat: the activations of a batch.
        b: the sequence.
        rows: T.
        at: (N,) positions that count.
        extremes: (3, U) as in `measure`.
        tops: as they were before this batch: what does not beat a unit's worst sequence never will.
        candidates: (2, U) for the units by polarity, rising; numbers: (2,) for how many they are.
        columns: (B, U, T or more) for the activations of those units at the positions that count.
        chosen: (SUB + 1,) to work in.
    """
    numbers[:] = 0
    units, length = columns.shape[1], U64(columns.shape[2])
    room, wanted = columns.reshape(columns.size), np.empty(SUB, np.int64)
    for start in range(0, units, SUB):
        some = wanted[: min(SUB, units - start)]
        some[:] = 0
        for p in (NEGATED, LARGEST):
            if tops[p][0].shape[1]:
                count = find_beaten(start, extremes[p, start : start + SUB], seq_id, split, tops[p], chosen)
                for i in chosen[:count]:
                    candidates[p, numbers[p]] = start + i
                    numbers[p] += 1
                    some[i] = 1
        origin = U64(b * rows * units + start)
        copy_wanted(flat, origin, U64(units), at, some, room, U64(b * units + start) * length, length)


@njit(cache=True, nogil=True)
def measure(values, batch, first, last, threshold, tops, sums, found):
    """Find what the sequences first..last of a (B, T, U) batch tell.

    Args:
        values: the activations.
        batch: seq_ids, splits, counted, binned, keys, places and place_starts of `Batch`.
        tops: those of the polarities - and + (see `winners`), without units where not recorded.
        sums: of this thread, total and rest of the power sums, (4, U) each, and minimum, maximum, tokens above the threshold and tokens
            that are not finite, (U,) each.
        found: (B, 3, U) by NEGATED, LARGEST and FIRING; by the first two the candidates (B, 2, U) and their numbers (B, 2); columns
            (B, U, T or more), see `set_aside`; and (B,) the number of units that have activations that are not finite.
    """
    seq_ids, splits, _, _, _, places, starts = batch
    extremes, candidates, numbers, columns, nonfinite = found
    units = values.shape[2]
    flat, chosen = values.reshape(values.size), np.empty(SUB + 1, np.int64)
    power = np.empty((4, units))
    for b in range(first, last):
        at = places[starts[b] : starts[b + 1]]
        read_sequence(flat, b * values.shape[1] * units, at, extremes[b], power, threshold)
        nonfinite[b] = 0
        for u in range(units if all_finite(power[1]) else 0, units):
            if not np.isfinite(power[1, u]):
                sums[5][u] += leave_out_nonfinite(values[b], at, u, extremes[b], power, threshold)
                nonfinite[b] += 1
        add_sequence(extremes[b], power, sums)
        set_aside(
            *(flat, b, values.shape[1], at, extremes[b], splits[b], seq_ids[b]),
            *(tops, candidates[b], numbers[b], columns, chosen),
        )
