"""The contract of a backend: the running state of one module's units.

Shapes: B sequences of a batch, T tokens, U units, K top-k slots of a unit, V tokens of the token table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from stages.record.recorded_batch import Batch

Array = npt.NDArray[Any]


class Accumulator(Protocol):
    """The running state of one module."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Add a batch: a (B, T, U) torch tensor, or SparseActivations. The caller may overwrite it afterwards."""
        ...

    def sums(self) -> "UnitSums":
        """The statistics and the top-k so far."""
        ...

    def uniform(self) -> "Mapping[int, Vectors]":
        """(U, T) activations on the uniformly kept sequences by seq_id, NaN at the positions that do not count."""
        ...


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
    """(4, 2, U) float64, as in `unit_statistics`."""
    histogram: Array
    """(U, BINS) int64"""
    top: "dict[str, TopK]"
    """By polarity, as in `sequences.polarities`."""
    token_sums: Array
    """(V, U) float64"""


@dataclass(frozen=True)
class TopK:
    """The top-k sequences of U units in one polarity, with K slots and T tokens."""

    values: Array
    """(U, K) float32 largest activation in the polarity (of -x for '-'), -inf in empty slots; the slots of each split lie
    together, in no order."""
    seq_ids: Array
    """(U, K) int64"""
    keys: Array
    """(U, K) int64 keys of the peak's neighbourhood, none twice in a split; 0 where record.distinct is off."""
    vectors: "Vectors"
    """(U, K, T) float32 activations, never negated; NaN at the positions that do not count, meaningless beyond the
    length of the sequence."""


class Vectors(Protocol):
    """Activations of U units: an array, or an object that makes one for a slice of units."""

    def __getitem__(self, units: slice, /) -> Array: ...
