"""What the running state of a module is, whatever computes it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stages.evidence import SPLITS
from stages.record.neighbourhood import neighbourhood_keys
from stages.record.selection import counted_positions, in_histogram, split_numbers
from stages.record.tokens import TokenTable
from stages.settings import Record

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """The sequences of a batch, shared by all modules. B sequences, T tokens, padded on the right."""

    lengths: Ints
    """(B,) real tokens."""
    seq_ids: Ints
    splits: Ints
    """(B,) positions in SPLITS."""
    counted: npt.NDArray[np.bool_]
    """(B, T) positions that the statistics are taken over: no padding, skipped position or special token."""
    binned: npt.NDArray[np.bool_]
    """(B,) sequences that the histograms of dense units are taken over."""
    places: Ints
    """(N,) the counted positions of one sequence after another, each from its sequence's start."""
    place_starts: Ints
    """(B + 1,) where in `places` each sequence starts, and the end."""
    keys: Ints
    """(B, T) keys of the neighbourhoods (see `neighbourhood`), 0 where record.distinct is off."""
    positions: Ints
    """Positions in the flattened (B * T,) batch whose activation counts for the token table, equal tokens together."""
    starts: Ints
    """Where in `positions` each distinct token starts, and the end."""
    token_rows: Ints
    """Row of each distinct token in the token table."""


def make_batch(
    token_ids: Array,
    lengths: Array,
    seq_ids: Array,
    config: Record,
    tokens: TokenTable,
    special_ids: Collection[int] = (),
) -> Batch:
    """Work out once what every module needs of a batch: (B, T) token ids, (B,) lengths and seq_ids."""
    lengths, seq_ids = np.asarray(lengths, np.int64), np.asarray(seq_ids, np.int64)
    splits = split_numbers(seq_ids)
    counted = counted_positions(token_ids, lengths, config, special_ids)
    sequence, places = np.nonzero(counted)
    explain = (splits == SPLITS.index("explain"))[:, None]
    rows = np.where(counted & explain, tokens.rows(token_ids), -1).ravel()
    order = np.argsort(rows, kind="stable")
    order = order[np.searchsorted(rows[order], 0) :]
    distinct, starts = np.unique(rows[order], return_index=True)
    if config.distinct:
        keys = neighbourhood_keys(np.asarray(token_ids, np.int64), lengths, config.distinct_context)
    else:
        keys = np.zeros(token_ids.shape, np.int64)
    return Batch(
        lengths=lengths,
        seq_ids=seq_ids,
        splits=splits,
        counted=counted,
        binned=in_histogram(seq_ids),
        places=places,
        place_starts=np.searchsorted(sequence, np.arange(len(seq_ids) + 1)),
        keys=keys,
        positions=order,
        starts=np.append(starts, len(order)).astype(np.int64),
        token_rows=distinct.astype(np.int64),
    )


class Vectors(Protocol):
    """(U, K, T) numbers, an array or what makes one of them for some units at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, units: slice, /) -> Array: ...


@dataclass(frozen=True)
class TopSums:
    """The strongest sequences in one polarity, of U units, with K slots and T tokens."""

    values: Array
    """(U, K) float32 largest activation in the polarity (of -x for '-'), -inf in empty slots; the slots of each split lie
    together, in no order."""
    seq_ids: Array
    """(U, K) int64"""
    keys: Array
    """(U, K) int64 keys of the peak's neighbourhood, none twice in a split; 0 where record.distinct is off."""
    vectors: Vectors
    """(U, K, T) float32 activations, never negated; NaN at the positions that do not count, meaningless beyond the
    length of the sequence."""


@dataclass(frozen=True)
class UnitSums:
    """The state of a module's U units as numpy arrays, ready to be put into tables."""

    n_tokens: int
    """Tokens counted, those with NaN or infinite activations among them."""
    n_nonfinite: Array
    """(U,) int64"""
    minimum: Array
    maximum: Array
    """(U,) float32; inf and -inf where no token was finite."""
    above: Array
    """(U,) int64 tokens above the threshold."""
    power_sums: Array
    """(4, 2, U) float64, as in `moments`."""
    histogram: Array
    """(U, BINS) int64"""
    top: dict[str, TopSums]
    """By polarity, as in `selection.polarities`."""
    token_sums: Array
    """(V, U) float64"""


class UniformRows(Protocol):
    """The activations of a module's U units on one uniformly kept sequence of T tokens."""

    def block(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(T, stop - start) activations of some units, NaN at the positions that do not count."""
        ...


@dataclass(frozen=True)
class DenseRows:
    """UniformRows as one array."""

    values: npt.NDArray[np.float32]
    """(T, U)"""

    def block(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        return self.values[:, start:stop]


class Accumulator(Protocol):
    """The running state of one module."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) torch tensor, or SparseActivations, in."""
        ...

    def sums(self) -> UnitSums: ...

    def uniform(self) -> Mapping[int, UniformRows]:
        """The uniformly kept sequences by seq_id."""
        ...
