"""The running state of a module on a CPU."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.record.backends.contract import DenseRows, TopK, UnitSums
from stages.record.backends.numba import use_torch_threads
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
from stages.record.backends.numba.numba_top_k import empty_slots, keep_top_k
from stages.record.histogram import BINS
from stages.record.kept_sequences import SIGNS, polarities, slot_starts, uniform_ids
from stages.record.recorded_batch import Batch
from stages.settings import Record


class NumbaSums:
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = True) -> None:
        use_torch_threads()
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
        self._uniform_ids = frozenset(uniform_ids(config).tolist())
        self._uniform: dict[int, DenseRows] = {}

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
        self._keep_uniform(values, batch)

    def _scratch(self, batch: Batch) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Scratch buffers for what is found of the batch's sequences; modules of equal width use the same ones."""
        key = ("numba", self.width)
        if key not in batch.cache:
            sequences = len(batch.seq_ids)
            found = np.empty((sequences, FOUND, self.width), np.float32)
            batch.cache[key] = found, np.empty((sequences, 4, self.width))
        found, powers = batch.cache[key]
        return found, powers

    def _keep_uniform(self, values: npt.NDArray[np.float32], batch: Batch) -> None:
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self._uniform_ids:
                rows = values[b, : batch.lengths[b]].copy()
                rows[~batch.counted[b, : batch.lengths[b]]] = np.nan
                self._uniform[seq_id] = DenseRows(rows)

    def sums(self) -> UnitSums:
        return UnitSums(
            n_tokens=self.n_tokens,
            n_nonfinite=self.nonfinite,
            minimum=self.minimum,
            maximum=self.maximum,
            above=self.above,
            power_sums=np.stack([self.power_totals, self.power_rests], axis=1),
            histogram=self.histogram[:, :BINS].astype(np.int64),
            top={
                polarity: TopK(slots.values, slots.seq_ids, slots.keys, slots.vectors)
                for polarity, slots in self.top.items()
            },
            token_sums=self.token_sums,
        )

    def uniform(self) -> Mapping[int, DenseRows]:
        return self._uniform
