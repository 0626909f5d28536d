# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The top-k sequences of each unit, kept up to date in numba.

A unit has slots for each split. A sequence enters if it beats the worst slot of its split, by activation and then by seq_id.
That is rare in the long run, and only then are its peak and its activations read. If a slot already holds the same
neighbourhood, the better of the two stays. The worst slot only gets better, so a sequence that was rejected could not enter
later either: the result is exact, and independent of the order.

Shapes: B sequences, T tokens, U units, K slots, S splits.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit, prange

BLOCK = 16
"""Units that a thread takes at a time: those that share a cache line of activations."""


class Slots(NamedTuple):
    """The top-k of U units in one polarity."""

    values: npt.NDArray[Any]
    """(U, K) float32 largest activation in the polarity; -inf in empty slots."""
    seq_ids: npt.NDArray[Any]
    """(U, K) int64"""
    keys: npt.NDArray[Any]
    """(U, K) int64 neighbourhoods of the peaks."""
    vectors: npt.NDArray[Any]
    """(U, K, T) float32 activations, NaN where they do not count."""
    worst_values: npt.NDArray[Any]
    """(S, U) float32 value of the worst slot of each split; inf for a split without slots, which nothing beats."""
    worst_ids: npt.NDArray[Any]
    """(S, U) int64 seq_id of that slot."""


@njit(cache=True, nogil=True, parallel=True)
def keep_top_k(
    activations, largest, sign, places, place_starts, seq_ids, splits, all_keys, starts, distinct,
    values, ids, keys, vectors, worst_values, worst_ids,
):  # fmt: skip
    """Insert the sequences of a batch that belong to the top-k of a unit.

    Args:
        activations: (B, T, U)
        largest: (B, U) largest activations in the polarity.
        sign: 1 for the polarity +, -1 for -.
        places, place_starts, seq_ids, splits, all_keys: of the batch.
        starts: as `sequences.slot_starts`; distinct: whether equal neighbourhoods count once.
        values, ids, keys, vectors, worst_values, worst_ids: the arrays of Slots, as prange takes no tuple.
    """
    width = values.shape[0]
    for block in prange(-(-width // BLOCK)):
        slots = Slots(values, ids, keys, vectors, worst_values, worst_ids)
        for b in range(len(seq_ids)):
            split, at = splits[b], places[place_starts[b] : place_starts[b + 1]]
            for u in range(block * BLOCK, min((block + 1) * BLOCK, width)):
                value = largest[b, u]
                if value > -np.inf and beats(value, seq_ids[b], worst_values[split, u], worst_ids[split, u]):
                    key = all_keys[b, peak(activations[b], at, u, value * sign)] if distinct else 0
                    slot = insert(u, value, seq_ids[b], key, split, starts, distinct, slots)
                    if slot >= 0:
                        vectors[u, slot] = np.nan
                        for t in at:
                            vectors[u, slot, t] = activations[b, t, u]


@njit(cache=True, nogil=True)
def beats(value, seq_id, other, other_id):
    """Whether a sequence comes before another one in the order of a unit."""
    return value > other or (value == other and seq_id < other_id)


@njit(cache=True, nogil=True)
def peak(sequence, at, u, value):
    """The first of the positions `at` where unit u of a (T, U) sequence has a value."""
    for t in at:
        if sequence[t, u] == value:
            return t
    return at[0]


@njit(cache=True, nogil=True)
def insert(u, value, seq_id, key, split, starts, distinct, slots):
    """Put a sequence that beats the worst slot of unit u into a slot, and return that; -1 if a better sequence has its key."""
    first, end = starts[split], starts[split + 1]
    values, ids = slots.values[u], slots.seq_ids[u]
    slot = worst_slot(values, ids, first, end)
    if distinct:
        for k in range(first, end):
            if slots.keys[u, k] == key and values[k] > -np.inf:
                slot = k
    if not beats(value, seq_id, values[slot], ids[slot]):
        return np.int64(-1)
    values[slot], ids[slot], slots.keys[u, slot] = value, seq_id, key
    worst = worst_slot(values, ids, first, end)
    slots.worst_values[split, u], slots.worst_ids[split, u] = values[worst], ids[worst]
    return np.int64(slot)


@njit(cache=True, nogil=True)
def worst_slot(values, ids, first, end):
    """The slot that comes last in the order of a unit."""
    worst = first
    for k in range(first + 1, end):
        if beats(values[worst], ids[worst], values[k], ids[k]):
            worst = k
    return worst
