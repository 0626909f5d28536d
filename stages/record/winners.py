# mypy: disable-error-code="no-untyped-def"
"""The strongest sequences of each unit, kept up to date in numba.

A unit has slots for each split. A sequence is inserted where it beats the worst of them, by activation and then by
seq_id, so in steady state hardly ever, and only then are its peak and its activations looked at. If a slot
already holds the same neighbourhood (see `neighbourhood`), the better of the two stays. As the worst slot only gets better, a
sequence that was left out could never have come back: what is kept is exact, in any order.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def keep_top(sequence, counted, keys, start, high, sign, distinct, seq_id, split, slots, top):
    """Insert a sequence where it beats the worst kept one of its split.

    Args:
        sequence: (T, W) activations of W units.
        counted: (T,) positions that count.
        keys: (T,) neighbourhoods of the positions.
        start: number of the first unit in its module.
        high: (W,) largest activations times `sign`; -inf where there is none.
        sign: 1 or -1, the polarity.
        distinct: whether equal neighbourhoods count once.
        slots: (S + 1,) where the slots of each split start, and the end.
        top: worst_value, worst_seq and worst_slot, each (S, U); values, seq_ids and keys, each (U, K); vectors
            (U, K, T). `values` are times `sign`.
    """
    worst_value, worst_seq = top[0][split, start : start + high.size], top[1][split, start : start + high.size]
    for i in range(high.size):
        value = high[i]
        if value < worst_value[i] or value == -np.inf or (value == worst_value[i] and seq_id > worst_seq[i]):
            continue
        peak = np.int64(0)
        while not counted[peak] or sequence[peak, i] * sign != value:
            peak += 1
        slot = find_slot(start + i, value, keys[peak], distinct, seq_id, split, slots, top)
        if slot >= 0:
            fill_slot(sequence, counted, start + i, i, slot, top)
            find_worst(start + i, split, slots, top)


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
def fill_slot(sequence, counted, u, i, slot, top):
    """Copy column i of a sequence, NaN where it does not count."""
    target = top[6][u, slot]
    for t in range(sequence.shape[0]):
        target[t] = sequence[t, i] if counted[t] else np.float32(np.nan)


@njit(cache=True, nogil=True)
def find_worst(u, split, slots, top):
    """Note which slot the next sequence has to beat."""
    worst_value, worst_seq, worst_slot, values, seq_ids, _, _ = top
    worst = slots[split]
    for k in range(slots[split] + 1, slots[split + 1]):
        lower = values[u, k] < values[u, worst]
        if lower or (values[u, k] == values[u, worst] and seq_ids[u, k] > seq_ids[u, worst]):
            worst = k
    worst_slot[split, u] = worst
    worst_value[split, u] = values[u, worst]
    worst_seq[split, u] = seq_ids[u, worst]
