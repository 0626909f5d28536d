"""The running state of a module whose activations are mostly zero, computed from the others alone.

The result equals that of `numba_sums` for the same activations with their zeros, up to the rounding of the power sums,
with one exception: only sequences on which a unit fires are kept as `top`. Statistics count the zeros, and `random`
sequences are kept for every unit, so a unit that never fires has rows too.

The work is done on the CPU. Activations on a GPU are copied there, and added when the next batch comes, so that the
program does not wait for the copy.

Memory: rows of activations are held for slots in use alone, and the uniformly kept sequences without their zeros.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from stages.record.backends.contract import TopK, UnitSums, Vectors
from stages.record.backends.numba.numba_sums import CpuState, empty_slots
from stages.record.backends.numba.numba_top_k import Slots
from stages.record.backends.numba.sparse_kernels import keep_firing, sum_up
from stages.record.recorded_batch import Batch
from stages.record.sequences import SIGNS, polarities
from stages.record.unit_statistics import BINS
from stages.settings import Record

Floats = npt.NDArray[np.float32]
GROWTH = 1.5
"""Factor by which a pool grows."""
ZERO_BIN = BINS // 2
"""The histogram's bin of 0.0."""


class SparseSums(CpuState):
    """Accumulator of SparseActivations for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = False) -> None:
        """signed: whether activations can be negative, so that the polarity `-` is kept too."""
        super().__init__(width, covered, config, BINS)
        self.entries = np.zeros(width, np.int64)
        """Activations that are not zero."""
        parts = min(torch.get_num_threads(), max(width, 1))
        self.top = {sign: Pool(width, seq_len, self.slot_starts, parts) for sign in polarities(config, signed)}
        self._uniform: dict[int, Vectors] = {}
        self._coming: tuple[torch.Tensor, Any, Batch] | None = None
        """The last batch: int32 positions, units and bits of its activations, and the event that says that they are there."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Add SparseActivations."""
        bits = activations.values.detach().float().view(torch.int32)
        self._take()
        given = torch.stack([activations.positions.int(), activations.units.int(), bits])
        there = given.to("cpu", non_blocking=True)  # from a GPU to pinned memory
        self._coming = there, torch.cuda.current_stream(given.device).record_event() if given.is_cuda else None, batch

    def _take(self) -> None:
        """Add the last batch, if it has not been added."""
        if self._coming is None:
            return
        there, copied, batch = self._coming
        self._coming = None
        if copied is not None:
            copied.synchronize()
        positions, units, bits = there.numpy()
        shown = batch.counted.ravel()[positions]
        rows = np.searchsorted(positions[shown], np.arange(batch.counted.size + 1))
        shape = (batch.counted.size, self.width)
        self._add(sparse.csr_array((bits[shown].view(np.float32), units[shown], rows), shape), batch)

    def _add(self, activations: sparse.csr_array, batch: Batch) -> None:
        """Add (B * T, U) activations at the positions that count."""
        self.n_tokens += len(batch.places)
        by_unit = activations.tocsc()
        given = (by_unit.indptr.astype(np.int64), by_unit.indices.astype(np.int64), by_unit.data)
        rows, tokens = np.full(batch.counted.size, -1, np.int64), batch.counted.shape[1]
        rows[batch.positions] = np.repeat(batch.token_rows, np.diff(batch.starts))
        sum_up(
            *(*given, by_unit.data.view(np.int32), rows, tokens, np.float32(self.config.density_threshold)),
            *(self.power_totals, self.power_rests, self.minimum, self.maximum, self.above, self.nonfinite),
            *(self.entries, self.histogram, self.token_sums),
        )
        about = (batch.counted, batch.seq_ids, batch.splits, batch.keys, self.slot_starts, self.config.distinct)
        for polarity, pool in self.top.items():
            pool.reserve(given[0])
            keep_firing(pool.share, *given, np.float32(SIGNS[polarity]), *about, pool.rows, pool.used, *pool.slots)
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self.uniform_ids:
                length = int(batch.lengths[b])
                kept = activations[b * tokens : b * tokens + length].T.tocsr()
                self._uniform[seq_id] = SparseRows(kept, batch.counted[b, :length].copy())

    def uniform(self) -> Mapping[int, Vectors]:
        self._take()
        return self._uniform

    def sums(self) -> UnitSums:
        self._take()
        zeros = self.n_tokens - self.entries
        zero = np.where(zeros > 0, np.float32(0), np.float32(np.nan))
        found = self.unit_sums({polarity: pool.top() for polarity, pool in self.top.items()})
        found.histogram[:, ZERO_BIN] += zeros
        return replace(
            found,
            minimum=np.fmin(self.minimum, zero),
            maximum=np.fmax(self.maximum, zero),
            above=self.above + (zeros if self.config.density_threshold < 0 else 0),
        )


class Pool:
    """The top-k of one polarity, with K slots a unit; a growing pool holds a row for each slot in use.

    With n parts of the units, each owns every n-th row of the pool. So threads can take new rows independently.
    """

    def __init__(self, width: int, seq_len: int, starts: npt.NDArray[np.int64], parts: int) -> None:
        self.share = max(-(-width // parts), 1)
        """Units of each part."""
        self.slots: Slots = empty_slots(width, 0, starts)._replace(vectors=np.empty((0, seq_len), np.float32))
        self.rows: npt.NDArray[np.int32] = np.full(self.slots.values.shape, -1, np.int32)
        """(U, K) row of the pool, -1 for an empty slot."""
        self.used = np.zeros(parts, np.int64)
        """(parts,) rows of the pool in use."""

    def reserve(self, starts: npt.NDArray[np.int64]) -> None:
        """Grow the pool by as many rows as a batch could need; starts: as in `sum_up`."""
        pool, used, parts = self.slots.vectors, int(self.used.max()), len(self.used)
        ends = np.minimum(np.arange(parts + 1) * self.share, len(self.rows))
        more = int(np.diff(starts[ends]).max())
        most = self.share * self.rows.shape[1]
        least = min(used + more, most) * parts
        if len(pool) < least:
            grown = np.empty((min(max(least, int(len(pool) * GROWTH)), most * parts), pool.shape[1]), np.float32)
            grown[: used * parts] = pool[: used * parts]
            self.slots = self.slots._replace(vectors=grown)

    def top(self) -> TopK:
        values, seq_ids, keys, pool, *_ = self.slots
        return TopK(values, seq_ids, keys, PooledVectors(self.rows, pool))


@dataclass(frozen=True)
class PooledVectors:
    """(U, K, T) activations, gathered from a pool for a slice of units; NaN in empty slots."""

    rows: npt.NDArray[np.int32]
    """(U, K) row of the pool, -1 for an empty slot."""
    pool: Floats

    @property
    def shape(self) -> tuple[int, int, int]:
        return (*self.rows.shape, self.pool.shape[1])

    def __getitem__(self, units: slice) -> Floats:
        rows = self.rows[units]
        found = np.full((*rows.shape, self.pool.shape[1]), np.nan, np.float32)
        found[rows >= 0] = self.pool[rows[rows >= 0]]
        return found


@dataclass(frozen=True)
class SparseRows:
    """(U, T) activations of a module on one sequence, NaN at the positions that do not count."""

    values: sparse.csr_array
    """(U, T)"""
    counted: npt.NDArray[np.bool_]
    """(T,)"""

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape

    def __getitem__(self, units: slice) -> Floats:
        found: Floats = self.values[units].toarray()
        found[:, ~self.counted] = np.nan
        return found
