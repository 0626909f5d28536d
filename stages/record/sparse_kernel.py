# mypy: disable-error-code="no-untyped-def"
"""One pass over the activations of a batch that are not zero, in numba.

They come as triples (position, unit, value), by position. The pass goes over one sequence after another. What it works
out about a unit and a sequence lies in an array over units, of which only the touched entries are set and read again; the
triples of a unit are chained, the last one first, so that its activations can be copied where the sequence is kept.
Zeros are never looked at: they are counted as what is missing.

Units do not depend on each other: each thread goes over all triples and takes those of its part of the units.
"""

import numpy as np
from numba import njit

from stages.record.kernel import GRID, histogram_bin
from stages.record.winners import find_slot, find_worst

F32 = np.float32
NONE = np.int32(-1)


@njit(cache=True, nogil=True)
def add_triple(value, bits, unit, place, row, threshold, state, scratch):
    """Take one activation into its unit's running values; `state` and `scratch` as in sparse_sums."""
    _, _, _, _, above, nonfinite, entries, histogram, token_sums = state
    power, extremes, peaks, _, _, _ = scratch
    entries[unit] += 1
    x = np.float64(value)
    if row >= 0:
        token_sums[row, unit] += (x + GRID) - GRID
    if not np.isfinite(value):
        nonfinite[unit] += 1
        return
    power[unit, 0] += x
    power[unit, 1] += x * x
    power[unit, 2] += x * (x * x)
    power[unit, 3] += (x * x) * (x * x)
    above[unit] += value > threshold
    histogram[unit, histogram_bin(bits)] += 1
    if value > extremes[unit, 0]:
        extremes[unit, 0] = value
        peaks[unit, 0] = place
    if -value > extremes[unit, 1]:
        extremes[unit, 1] = -value
        peaks[unit, 1] = place


@njit(cache=True, nogil=True)
def add_sequence(unit, state, scratch):
    """Take the finished values of a unit's sequence into its totals (two-sum, as in `moments`)."""
    total, rest, minimum, maximum = state[0], state[1], state[2], state[3]
    power, extremes = scratch[0], scratch[1]
    for p in range(4):
        new = total[p, unit] + power[unit, p]
        back = new - total[p, unit]
        rest[p, unit] += (total[p, unit] - (new - back)) + (power[unit, p] - back)
        total[p, unit] = new
    maximum[unit] = max(maximum[unit], extremes[unit, 0])
    minimum[unit] = min(minimum[unit], -extremes[unit, 1])


@njit(cache=True, nogil=True)
def copy_vector(vector, last, before, places, values, counted):
    """Write a unit's activations on a sequence of T tokens, from its chain of triples; NaN where none counts."""
    for t in range(counted.size):
        vector[t] = F32(0) if counted[t] else F32(np.nan)
    entry = last
    while entry != NONE:
        vector[places[entry]] = values[entry]
        entry = before[entry]


@njit(cache=True, nogil=True)
def row_of(unit, slot, rows, used, part):
    """The row of the pool that belongs to a slot, a new one where it was empty: of P parts each has every P-th row."""
    if rows[unit, slot] == NONE:
        rows[unit, slot] = used[part] * used.size + part
        used[part] += 1
    return rows[unit, slot]


@njit(cache=True, nogil=True)
def keep_touched(touched, split, seq_id, b, places, values, batch, settings, scratch, kept, part):
    """Offer a sequence to the units that fire on it, in each recorded polarity."""
    counted, keys, _, _, _ = batch
    slots, _, distinct, ends = settings
    _, extremes, peaks, last, before, _ = scratch
    for p in range(ends.size):
        top, rows, used = kept[p]
        worst_value, worst_seq = top[0][split], top[1][split]
        for i in range(touched.size):
            unit = touched[i]
            value = extremes[unit, ends[p]]
            if not value > 0 or value < worst_value[unit] or (value == worst_value[unit] and seq_id > worst_seq[unit]):
                continue
            key = keys[b, peaks[unit, ends[p]]]
            slot = find_slot(unit, value, key, distinct, seq_id, split, slots, top)
            if slot >= 0:
                find_worst(unit, split, slots, top)
                vector = top[6][row_of(unit, slot, rows, used, part)]
                copy_vector(vector, last[unit], before, places, values, counted[b])


@njit(cache=True, nogil=True)
def scan_triples(part, share, positions, units, values, bits, places, batch, settings, state, scratch, kept):
    """Take those of the N triples of a batch that are of a part of the units into the running state of a module.

    Args:
        part: its number; share: units of each part.
        positions, units, values: (N,) as in SparseActivations, the first two as int32.
        bits: (N,) the values' bits as int32.
        places: (N,) int32 room for the position of each triple in its sequence.
        batch, settings, state, scratch, kept: as in sparse_sums.
    """
    counted, _, rows, seq_ids, splits = batch
    _, threshold, _, _ = settings
    power, extremes, _, last, before, all_touched = scratch
    tokens, touched, first = counted.shape[1], all_touched[part], part * share
    entry = 0
    while entry < positions.size:
        b = positions[entry] // tokens
        count = 0
        while entry < positions.size and positions[entry] < (b + 1) * tokens:
            place, unit = np.int32(positions[entry] - b * tokens), units[entry]
            if first <= unit < first + share and counted[b, place]:
                if last[unit] == NONE:
                    touched[count] = unit
                    count += 1
                    power[unit, :] = 0.0
                    extremes[unit, :] = -np.inf
                places[entry], before[entry], last[unit] = place, last[unit], entry
                add_triple(values[entry], bits[entry], unit, place, rows[b, place], threshold, state, scratch)
            entry += 1
        for i in range(count):
            add_sequence(touched[i], state, scratch)
        keep_touched(touched[:count], splits[b], seq_ids[b], b, places, values, batch, settings, scratch, kept, part)
        for i in range(count):
            last[touched[i]] = NONE
