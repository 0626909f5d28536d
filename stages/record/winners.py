# mypy: disable-error-code="no-untyped-def"
"""The strongest sequences of each unit, kept up to date in numba.

A unit has slots for each split. A sequence is inserted where it beats the worst of them, by activation and then by
seq_id, so in steady state hardly ever, and only then are its peak and its activations looked at. If a slot
already holds the same neighbourhood (see `neighbourhood`), the better of the two stays. As the worst slot only gets better, a
sequence that was left out could never have come back: what is kept is exact, in any order.

Slots lie far apart in memory, so all sequences of a batch that beat a unit's are inserted while its slots are in the cache, and what
the next ones need is fetched meanwhile.
"""

from typing import Any

import numpy as np
from numba import njit

from stages.record.prefetch import prefetch

AHEAD = 6
"""Candidates in front of which memory is fetched into the cache."""
TILE = 16
"""Units that are looked at together."""
NAN = np.float32(np.nan)
INNER: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
"""Options of the functions that are called for single units. They do not count references to arrays: each view of an array and each
array taken out of a tuple would count, by an atomic operation, which takes a third of the time. So they cannot make arrays."""


@njit(**INNER)
def keep_top(units, batch, p, found, slots, distinct, top, order):
    """Insert the sequences of a batch where they beat the worst kept one of their split, unit by unit.

    Args:
        units: U.
        batch: as in `measure`.
        p: 1 for the polarity +, 0 for -.
        found: as in `measure`.
        slots: (S + 1,) where the slots of each split start, and the end.
        distinct: whether equal neighbourhoods count once.
        top: worst_value, worst_seq and worst_slot, each (S, U); values, seq_ids and keys, each (U, K); vectors
            (U, K, T). `values` are -x in the polarity -.
        order: the candidates that are looked at, as `by_unit` gives them.
    """
    seq_ids, splits, _, _, keys, places, starts = batch
    extremes, candidates, _, columns, _ = found
    worst_value, worst_seq, sign = top[0], top[1], np.float32(1 if p else -1)
    for j in range(order.size):
        fetch_slots(order[min(j + AHEAD, order.size - 1)], units, p, splits, found, top)
        b, i = order[j] // units, order[j] % units
        u, split, seq_id = candidates[b, p, i], splits[b], seq_ids[b]
        value, worst = extremes[b, p, u], worst_value[split, u]
        if value == -np.inf or not (value > worst or (value == worst and seq_id < worst_seq[split, u])):
            continue
        at = places[starts[b] : starts[b + 1]]
        insert(columns[b, u, : at.size], at, keys[b], u, value * sign, sign, distinct, seq_id, split, slots, top)


@njit(**INNER)
def fetch_slots(entry, units, p, splits, found, top):
    """Start to fetch into the cache what is needed to insert a candidate, all of it at once."""
    b = entry // units
    u = found[1][b, p, entry % units]
    prefetch(found[3], (b, u))
    prefetch(top[3], (u,))
    prefetch(top[4], (u,))
    prefetch(top[5], (u,))
    prefetch(top[6], (u, top[2][splits[b], u]))


@njit(cache=True, nogil=True)
def by_unit(candidates, numbers, first, last):
    """The units in first..last among the candidates (B, U), of which there are `numbers` (B,), those of a unit together.

    Returns:
        The place of each in the flattened candidates.
    """
    ends = np.zeros(last - first + 1, np.int64)
    for b in range(numbers.size):
        for u in candidates[b, : numbers[b]]:
            if first <= u < last:
                ends[u - first + 1] += 1
    ends = np.cumsum(ends)
    found = np.empty(ends[-1], np.int64)
    for b in range(numbers.size):
        for i in range(numbers[b]):
            u = candidates[b, i]
            if first <= u < last:
                found[ends[u - first]] = b * candidates.shape[1] + i
                ends[u - first] += 1
    return found


@njit(**INNER)
def find_beaten(start, high, seq_id, split, top, chosen):
    """Note the units of which a sequence beats the worst kept one, and return how many they are."""
    worst_value = top[0][split, start : start + high.size]
    worst_seq = top[1][split, start : start + high.size]
    count = 0
    for first in range(0, high.size, TILE):
        last = min(first + TILE, high.size)
        if not reaches(high[first:last], worst_value[first:last]):
            continue
        for i in range(first, last):
            value, worst = high[i], worst_value[i]
            beats = value > worst or (value == worst and seq_id < worst_seq[i])
            chosen[count] = i
            count += 1 if beats and value != -np.inf else 0
    return count


@njit(**INNER)
def reaches(high, worst):
    """Whether any of some units is at its worst kept activation or above."""
    some = 0
    for i in range(high.size):
        some |= high[i] >= worst[i]
    return some != 0


@njit(**INNER)
def insert(column, at, keys, u, extreme, sign, distinct, seq_id, split, slots, top):
    """Put a sequence into a slot of a unit, of which it beats the worst one.

    Args:
        column: (N,) the unit's activations at the positions that count, the `extreme` one among them.
    """
    peak = column.size
    for r in range(column.size):
        peak = min(peak, r if column[r] == extreme else column.size)
    slot = find_slot(u, extreme * sign, keys[at[peak]], distinct, seq_id, split, slots, top)
    if slot < 0:
        return
    copy_column(column, at, top[6][u, slot])
    find_worst(u, split, slots, top)


@njit(**INNER)
def copy_column(column, at, vector):
    """Write (N,) activations to their N positions of T, and NaN to the others."""
    first, end = at[0], at[0] + at.size
    if at[-1] == end - 1:  # as in most sequences: all positions count but the first ones
        for t in range(first):
            vector[t] = NAN
        inside = vector[first:end]
        for r in range(inside.size):
            inside[r] = column[r]
        for t in range(end, vector.size):
            vector[t] = NAN
        return
    vector[:] = NAN
    for r in range(at.size):
        vector[at[r]] = column[r]


@njit(**INNER)
def find_slot(u, value, key, distinct, seq_id, split, slots, top):
    """Put value, seq_id and key of a sequence into a slot and return it; -1 where a better one has the same key."""
    _, _, worst_slot, values, seq_ids, keys, _ = top
    slot = worst_slot[split, u]
    if distinct:
        for k in range(slots[split], slots[split + 1]):
            if keys[u, k] == key and values[u, k] != -np.inf:
                if values[u, k] > value or (values[u, k] == value and seq_ids[u, k] < seq_id):
                    return np.int64(-1)
                slot = k
                break
        keys[u, slot] = key
    values[u, slot] = value
    seq_ids[u, slot] = seq_id
    return slot


@njit(**INNER)
def find_worst(u, split, slots, top):
    """Note which slot the next sequence has to beat."""
    worst_value, worst_seq, worst_slot, values, seq_ids, _, _ = top
    first, end = slots[split], slots[split + 1]
    least = values[u, first]
    for k in range(first + 1, end):
        least = min(least, values[u, k])
    worst, latest = first, np.int64(-1)
    for k in range(first, end):
        if values[u, k] == least and seq_ids[u, k] > latest:
            worst, latest = k, seq_ids[u, k]
    worst_slot[split, u] = worst
    worst_value[split, u] = least
    worst_seq[split, u] = latest
