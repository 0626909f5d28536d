"""The running state of a module on a CPU."""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from stages.evidence import SPLITS
from stages.record.backends.contract import TopK, UnitSums
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
from stages.record.backends.numba.numba_top_k import Slots, keep_top_k
from stages.record.recorded_batch import Batch
from stages.record.sequences import NO_SEQUENCE, SIGNS, polarities, slot_starts, uniform_ids
from stages.record.unit_statistics import BINS
from stages.settings import Record


class CpuState:
    """What every accumulator on a CPU holds: statistics and top-k of U units, with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool, stride: int) -> None:
        """stride: counts from one unit's histogram to the next."""
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        self.width, self.config = width, config
        self.n_tokens = 0
        self.power_totals, self.power_rests = np.zeros((4, width)), np.zeros((4, width))
        self.minimum = np.full(width, np.inf, np.float32)
        self.maximum = np.full(width, -np.inf, np.float32)
        self.above, self.nonfinite = np.zeros(width, np.int64), np.zeros(width, np.int64)
        self.histogram = np.zeros((width, stride), np.int32)
        self.token_sums = np.zeros((covered, width))
        self.slot_starts = slot_starts(config)
        self.top = {sign: empty_slots(width, seq_len, self.slot_starts) for sign in polarities(config, signed)}
        self.uniform_ids = frozenset(uniform_ids(config).tolist())

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


class NumbaSums(CpuState):
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = True) -> None:
        super().__init__(width, seq_len, covered, config, signed, STRIDE)
        self._uniform: dict[int, npt.NDArray[np.float32]] = {}

    def add(self, activations: Any, batch: Batch) -> None:
        """Add a (B, T, U) tensor."""
        values = activations.detach().float().cpu().contiguous().numpy()
        found, powers = self._scratch(batch)
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
                self._uniform[seq_id] = rows.T

    def _scratch(self, batch: Batch) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Scratch buffers for what is found of the batch's sequences; modules of equal width use the same ones."""
        if self.width not in batch.cache:
            sequences = len(batch.seq_ids)
            found = np.empty((sequences, FOUND, self.width), np.float32)
            batch.cache[self.width] = found, np.empty((sequences, 4, self.width))
        found, powers = batch.cache[self.width]
        return found, powers

    def uniform(self) -> Mapping[int, npt.NDArray[np.float32]]:
        return self._uniform


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
