# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""The running state of a module whose activations are mostly zero, computed from the others alone.

The result equals that of `numba_sums` for the same activations with their zeros, up to the rounding of the power sums,
with one exception: only sequences on which a unit fires are kept as `top`. Statistics count the zeros, and `random`
sequences are kept for every unit, so a unit that never fires has rows too.

The work is done on the CPU. Activations on a GPU are copied there, and added when the next batch comes, so that the
program does not wait for the copy.

The uniformly kept sequences are held without their zeros.

In the kernels the activations are sorted by unit and then by position, so those of a unit on one sequence are a run. Threads split
the work by units. Shapes: N activations, B sequences, T tokens, U units.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit, prange
from scipy import sparse

from stages.record.backends.contract import UnitSums, Vectors
from stages.record.backends.numba.numba_measure import (
    FIRING,
    FOUND,
    LARGEST,
    NEGATED,
    NONFINITE,
    add_exactly,
    histogram_bin,
    read_finite,
)
from stages.record.backends.numba.numba_sums import CpuState, Slots, beats, insert
from stages.record.recorded_batch import GRID, Batch
from stages.record.sequences import SIGNS
from stages.record.unit_statistics import BINS
from stages.settings import Record

Floats = npt.NDArray[np.float32]
ZERO_BIN = BINS // 2
"""The histogram's bin of 0.0."""


class SparseSums(CpuState):
    """Accumulator of SparseActivations for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(self, width: int, seq_len: int, covered: int, config: Record, signed: bool = False) -> None:
        """signed: whether activations can be negative, so that the polarity `-` is kept too."""
        super().__init__(width, seq_len, covered, config, signed)
        self.entries = np.zeros(width, np.int64)
        """Activations that are not zero."""
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
        shown, shape = batch.counted.ravel()[positions], (batch.counted.size, self.width)
        ends = np.searchsorted(positions[shown], np.arange(shape[0] + 1))
        self._add(sparse.csr_array((bits[shown].view(np.float32), units[shown], ends), shape), batch)

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
        for polarity, slots in self.top.items():
            keep_firing(*given, np.float32(SIGNS[polarity]), *about, *slots)
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self.uniform_ids:
                length = int(batch.lengths[b])
                kept = activations[b * tokens : b * tokens + length].T.tocsr()
                self.kept[seq_id] = SparseRows(kept, batch.counted[b, :length].copy())

    def uniform(self) -> Mapping[int, Vectors]:
        self._take()
        return super().uniform()

    def sums(self) -> UnitSums:
        self._take()
        zeros = self.n_tokens - self.entries
        zero = np.where(zeros > 0, np.float32(0), np.float32(np.nan))
        found = super().sums()
        found.histogram[:, ZERO_BIN] += zeros
        return replace(
            found,
            minimum=np.fmin(self.minimum, zero),
            maximum=np.fmax(self.maximum, zero),
            above=self.above + (zeros if self.config.density_threshold < 0 else 0),
        )


@dataclass(frozen=True)
class SparseRows:
    """(U, T) activations of a module on one sequence, NaN at the positions that do not count."""

    values: sparse.csr_array
    """(U, T)"""
    counted: npt.NDArray[np.bool_]
    """(T,)"""

    def __getitem__(self, units: slice) -> Floats:
        found: Floats = self.values[units].toarray()
        found[:, ~self.counted] = np.nan
        return found


@njit(cache=True, nogil=True, parallel=True)
def sum_up(
    starts, positions, values, bits, rows, tokens, threshold,
    totals, rests, minimum, maximum, above, nonfinite, entries, histogram, token_sums,
):  # fmt: skip
    """Add the activations of a batch to the running sums.

    Args:
        starts: (U + 1,) where the activations of each unit start, and the end.
        positions, values, bits: (N,) position in the flattened batch, activation, and its bits as int32.
        rows: (B * T,) row in the token table of each position, or -1.
        tokens: T.
        totals, rests, ...: as in SparseSums.
    """
    for unit in prange(starts.size - 1):
        found, powers = np.empty(FOUND, np.float32), np.empty(4)
        i = starts[unit]
        while i < starts[unit + 1]:
            end = end_of_run(i, starts[unit + 1], positions, tokens)
            read_finite(values, range(i, end), threshold, found, powers)
            add_exactly(totals[:, unit], rests[:, unit], powers)
            minimum[unit], maximum[unit] = min(minimum[unit], -found[NEGATED]), max(maximum[unit], found[LARGEST])
            above[unit] += np.int64(found[FIRING])
            nonfinite[unit] += np.int64(found[NONFINITE])
            entries[unit] += end - i
            for k in range(i, end):
                if rows[positions[k]] >= 0:
                    token_sums[rows[positions[k]], unit] += (np.float64(values[k]) + GRID) - GRID
                if np.isfinite(values[k]):
                    histogram[unit, histogram_bin(bits[k])] += 1
            i = end


@njit(cache=True, nogil=True)
def end_of_run(i, last, positions, tokens):
    """Where the run of the i-th activation ends."""
    stop = (positions[i] // tokens + 1) * tokens
    while i < last and positions[i] < stop:
        i += 1
    return i


@njit(cache=True, nogil=True, parallel=True)
def keep_firing(
    starts, positions, values, sign, counted, seq_ids, splits, all_keys, slot_starts, distinct,
    top_values, ids, keys, vectors, worst_values, worst_ids,
):  # fmt: skip
    """Insert the sequences of a batch on which a unit fires and that belong to its top-k.

    Args:
        starts, positions, values: as in `sum_up`.
        sign: 1 for the polarity +, -1 for -.
        counted, seq_ids, splits, all_keys: of the batch.
        slot_starts, distinct, top_values, ids, keys, vectors, worst_values, worst_ids: as in `numba_sums.keep_top_k`.
    """
    tokens = counted.shape[1]
    for unit in prange(starts.size - 1):
        slots = Slots(top_values, ids, keys, vectors, worst_values, worst_ids)
        i = starts[unit]
        while i < starts[unit + 1]:
            end = end_of_run(i, starts[unit + 1], positions, tokens)
            best, place = peak_of_run(values, i, end, sign)
            b = positions[i] // tokens
            split = splits[b]
            if best > 0 and beats(best, seq_ids[b], worst_values[split, unit], worst_ids[split, unit]):
                key = all_keys[b, positions[place] % tokens]
                slot = insert(unit, best, seq_ids[b], key, split, slot_starts, distinct, slots)
                if slot >= 0:
                    for t in range(tokens):
                        vectors[unit, slot, t] = 0 if counted[b, t] else np.nan
                    for k in range(i, end):
                        vectors[unit, slot, positions[k] % tokens] = values[k]
            i = end


@njit(cache=True, nogil=True)
def peak_of_run(values, start, end, sign):
    """The largest finite activation of a run in a polarity, -inf without any, and where it first occurs."""
    best, place = np.float32(-np.inf), start
    for k in range(start, end):
        value = values[k] * sign
        if np.isfinite(value) and value > best:
            best, place = value, k
    return best, place
