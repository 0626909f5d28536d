# mypy: disable-error-code="no-untyped-def"
"""The strongest sequences of each unit, kept up to date in numba.

A unit has slots for each split. A sequence is inserted where it beats the worst of them, by activation and then by
seq_id, so in steady state hardly ever, and only then are its peak and its activations looked at. If a slot
already holds the same neighbourhood (see `neighbourhood`), the better of the two stays. As the worst slot only gets better, a
sequence that was left out could never have come back: what is kept is exact, in any order.

Slots lie far apart in memory, and finding them takes longer than the work on them. So those of all units that are about to change
are touched first, one right after the other, which lets the processor fetch them side by side.
"""

import numpy as np
from numba import njit

TILE = 16
"""Units whose activations lie in one cache line of a row."""
MANY = 2
"""With more of them to insert, the columns of all are copied, row by row."""
NAN = np.float32(np.nan)


@njit(cache=True, nogil=True)
def keep_top(piece, whole, sequence, at, start, high, sign, about, top, room):
    """Insert a sequence where it beats the worst kept one of its split.

    Args:
        piece: (N, W) activations of W units at the positions that count, in the cache.
        whole: whether the piece holds all of them; otherwise they are looked up in `sequence`.
        sequence: (T, U) activations of all units.
        at: (N,) positions that count.
        start: the first of the W units.
        high: (W,) their largest activations times `sign`; -inf where there is none.
        sign: 1 or -1, the polarity.
        about: of the sequence, keys (T,) of the neighbourhoods of its positions, its seq_id and its split; slots (S + 1,) where
            the slots of each split start, and the end; and whether equal neighbourhoods count once.
        top: worst_value, worst_seq and worst_slot, each (S, U); values, seq_ids and keys, each (U, K); vectors
            (U, K, T). `values` are times `sign`.
        room: chosen (W + 1,), columns (TILE, T) and touched (1,), to work in.
    """
    keys, seq_id, split, slots, distinct = about
    chosen, columns, touched = room
    count = find_beaten(start, high, seq_id, split, top, chosen)
    touched[0] = touch(start, chosen[:count], split, slots, top)
    done = 0
    while done < count:
        first = chosen[done] // TILE * TILE
        begin = done
        while done < count and chosen[done] < first + TILE:
            done += 1
        tile = chosen[begin:done]
        if whole and tile.size > MANY:
            for r in range(at.size):
                for j in range(min(TILE, high.size - first)):
                    columns[j, r] = piece[r, first + j]
        else:
            for i in tile:
                for r in range(at.size):
                    columns[i - first, r] = piece[r, i] if whole else sequence[at[r], start + i]
        for i in tile:
            insert(columns[i - first], at, keys, start + i, high[i] * sign, sign, distinct, seq_id, split, slots, top)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def reaches(high, worst):
    """Whether any of some units is at its worst kept activation or above."""
    some = 0
    for i in range(high.size):
        some |= high[i] >= worst[i]
    return some != 0


@njit(cache=True, nogil=True)
def touch(start, chosen, split, slots, top):
    """Read a number from each cache line that `insert` will need; the sum is there so that the reading is."""
    _, _, worst_slot, values, seq_ids, keys, vectors = top
    low, end = slots[split], slots[split + 1]
    ones, numbers = np.float32(0), np.int64(0)
    for i in chosen:
        u = start + i
        slot = worst_slot[split, u]
        for k in range(low, end, TILE):
            ones += values[u, k]
        for t in range(0, vectors.shape[2], TILE):
            ones += vectors[u, slot, t]
        for k in range(low, end, TILE // 2):
            numbers += keys[u, k]
        numbers += seq_ids[u, slot]
    return ones + np.float32(numbers)


@njit(cache=True, nogil=True)
def insert(column, at, keys, u, extreme, sign, distinct, seq_id, split, slots, top):
    """Put a sequence into a slot of a unit, of which it beats the worst one.

    Args:
        column: (N,) the unit's activations at the positions that count, the `extreme` one among them.
    """
    peak = 0
    while column[peak] != extreme:
        peak += 1
    slot = find_slot(u, extreme * sign, keys[at[peak]], distinct, seq_id, split, slots, top)
    if slot < 0:
        return
    copy_column(column, at, top[6][u, slot])
    find_worst(u, split, slots, top)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def find_worst(u, split, slots, top):
    """Note which slot the next sequence has to beat."""
    worst_value, worst_seq, worst_slot, values, seq_ids, _, _ = top
    worst = slots[split]
    least = values[u, worst]
    for k in range(worst + 1, slots[split + 1]):
        value = values[u, k]
        if value < least or (value == least and seq_ids[u, k] > seq_ids[u, worst]):
            worst, least = k, value
    worst_slot[split, u] = worst
    worst_value[split, u] = least
    worst_seq[split, u] = seq_ids[u, worst]
