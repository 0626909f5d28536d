# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The running state of a module on a CPU, and the top-k sequences of each unit, kept up to date in numba.

A unit has slots for each split. A sequence enters if it beats the worst slot of its split, by activation and then by seq_id.
That is rare in the long run, and only then are its peak and its activations read. If a slot already holds the same
neighbourhood, the better of the two stays. The worst slot only gets better, so a sequence that was rejected could not enter
later either: the result is exact, and independent of the order.

Shapes: B sequences, T tokens, U units, K slots, S splits.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import njit, prange

from stages.evidence import SPLITS
from stages.record.backends.contract import TopK, UnitSums, Vectors
from stages.record.backends.numba.numba_measure import (
    FOUND,
    LARGEST,
    NEGATED,
    STRIDE,
    add_tokens,
    count_bins,
    fold,
    measure,
)
from stages.record.recorded_batch import Batch
from stages.record.sequences import NO_SEQUENCE, SIGNS, polarities, slot_starts, uniform_ids
from stages.record.unit_statistics import BINS
from stages.settings import Record

SHARED = 16
"""Units that a thread takes at a time: those that share a cache line of activations."""


class Slots(NamedTuple):
    """The top-k of U units in one polarity: the arrays of TopK, and the worst slot of each split."""

    values: npt.NDArray[Any]
    seq_ids: npt.NDArray[Any]
    keys: npt.NDArray[Any]
    vectors: npt.NDArray[Any]
    worst_values: npt.NDArray[Any]
    """(S, U) float32; inf for a split without slots, which nothing beats."""
    worst_ids: npt.NDArray[Any]
    """(S, U) int64 seq_ids."""


def empty_slots(width: int, seq_len: int, starts: npt.NDArray[np.int64]) -> Slots:
    """Slots without sequences; starts: (S + 1,) as `sequences.slot_starts`."""
    shape = (width, int(starts[-1]))
    worst = np.where(np.diff(starts) > 0, -np.inf, np.inf).astype(np.float32)
    return Slots(
        values=np.full(shape, -np.inf, np.float32),
        seq_ids=np.full(shape, NO_SEQUENCE),
        keys=np.zeros(shape, np.int64),
        vectors=np.zeros((*shape, seq_len), np.float32),
        worst_values=np.repeat(worst[:, None], width, axis=1),
        worst_ids=np.full((len(SPLITS), width), NO_SEQUENCE),
    )


class CpuState:
    """What every accumulator on a CPU holds: statistics and top-k of U units, with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = True) -> None:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        self.width, self.config = width, config
        self.n_tokens = 0
        self.power_totals, self.power_rests = np.zeros((4, width)), np.zeros((4, width))
        self.minimum = np.full(width, np.inf, np.float32)
        self.maximum = np.full(width, -np.inf, np.float32)
        self.above, self.nonfinite = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self.histogram = np.zeros((width, STRIDE), np.int32)
        self.token_sums = np.zeros((covered, width))
        self.slot_starts = slot_starts(config)
        self.top = {sign: empty_slots(width, seq_len, self.slot_starts) for sign in polarities(config, signed)}
        self.uniform_ids = frozenset(uniform_ids(config).tolist())
        self.kept: dict[int, Vectors] = {}
        """The uniformly kept sequences by seq_id."""

    def sums(self) -> UnitSums:
        return UnitSums(
            n_tokens=self.n_tokens,
            n_nonfinite=self.nonfinite,
            minimum=self.minimum,
            maximum=self.maximum,
            above=self.above,
            power_sums=np.stack([self.power_totals, self.power_rests], axis=1),
            histogram=self.histogram[:, :BINS].astype(np.int64),
            top={polarity: TopK(*slots[:4]) for polarity, slots in self.top.items()},
            token_sums=self.token_sums,
        )

    def uniform(self) -> Mapping[int, Vectors]:
        return self.kept


class NumbaSums(CpuState):
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Add a (B, T, U) tensor."""
        values = activations.detach().float().cpu().contiguous().numpy()
        sequences = len(values)
        scratch = (np.empty((sequences, FOUND, self.width), np.float32), np.empty((sequences, 4, self.width)))
        found, powers = batch.cache.setdefault(self.width, scratch)  # for all modules of this width
        at = (batch.places, batch.place_starts)
        measure(values, *at, np.float32(self.config.density_threshold), found, powers)
        fold(
            *(found, powers, self.power_totals, self.power_rests),
            *(self.minimum, self.maximum, self.above, self.nonfinite),
        )
        if batch.binned.any():
            count_bins(values.view(np.int32), *at, np.flatnonzero(batch.binned), self.histogram)
        tokens = (batch.positions, batch.starts, batch.token_rows)
        add_tokens(values.reshape(-1, self.width), *tokens, self.token_sums)
        for polarity, slots in self.top.items():
            largest, sign = found[:, LARGEST if polarity == "+" else NEGATED], np.float32(SIGNS[polarity])
            about = (batch.seq_ids, batch.splits, batch.keys, self.slot_starts, self.config.distinct)
            keep_top_k(values, largest, sign, *at, *about, *slots)
        self.n_tokens += len(batch.places)
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self.uniform_ids:
                rows = values[b, : batch.lengths[b]].copy()
                rows[~batch.counted[b, : batch.lengths[b]]] = np.nan
                self.kept[seq_id] = rows.T


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
    for block in prange(-(-width // SHARED)):
        slots = Slots(values, ids, keys, vectors, worst_values, worst_ids)
        for b in range(len(seq_ids)):
            split, at = splits[b], places[place_starts[b] : place_starts[b + 1]]
            for u in range(block * SHARED, min((block + 1) * SHARED, width)):
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
