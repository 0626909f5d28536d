"""What the running state of a module is, whatever computes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.config import Record
from stages.record.selection import split_numbers
from stages.record.tokens import TokenTable

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """The sequences of a batch, shared by all modules. B sequences, T tokens, padded on the right."""

    lengths: npt.NDArray[np.int64]
    """(B,) real tokens."""
    seq_ids: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int64]
    """(B,) positions in SPLITS."""
    positions: npt.NDArray[np.int64]
    """Positions in the flattened (B * T,) batch whose activation counts for the token table, equal tokens together."""
    starts: npt.NDArray[np.int64]
    """Where in `positions` each distinct token starts, and the end."""
    token_rows: npt.NDArray[np.int64]
    """Row of each distinct token in the token table."""


def make_batch(token_ids: Array, lengths: Array, seq_ids: Array, config: Record, tokens: TokenTable) -> Batch:
    """Work out once what every module needs of a batch: (B, T) token ids, (B,) lengths and seq_ids."""
    splits = split_numbers(seq_ids)
    place = np.arange(token_ids.shape[1])
    counted = (place >= config.skip_positions) & (place < np.asarray(lengths)[:, None]) & (splits == 0)[:, None]
    rows = np.where(counted, tokens.rows(token_ids), -1).ravel()
    order = np.argsort(rows, kind="stable")
    order = order[np.searchsorted(rows[order], 0) :]
    distinct, starts = np.unique(rows[order], return_index=True)
    return Batch(
        lengths=np.asarray(lengths, np.int64),
        seq_ids=np.asarray(seq_ids, np.int64),
        splits=splits,
        positions=order,
        starts=np.append(starts, len(order)).astype(np.int64),
        token_rows=distinct.astype(np.int64),
    )


@dataclass(frozen=True)
class TopSums:
    """The kept sequences of one polarity: U units, K slots, T tokens; the slots of each split lie together, in no order."""

    values: Array
    """(U, K) float32, the largest activation in the polarity (that of -x for '-'), -inf in empty slots."""
    seq_ids: Array
    """(U, K) int64"""
    keys: Array
    """(U, K) int64 of the neighbourhood of the peak; of equal keys one is kept. 0 where record.distinct is off."""
    vectors: Array
    """(U, K, T) float32 as recorded; NaN at positions that do not count, meaningless beyond the sequence's length."""


class UniformRows(Protocol):
    """The activations of a module on a sequence that is kept for every unit."""

    def block(self, start: int, stop: int) -> Array:
        """(T, stop - start) float32 of some units; NaN at positions that do not count."""
        ...


@dataclass(frozen=True)
class UnitSums:
    """The state of a module's U units as numpy arrays, ready to be put into tables."""

    n_tokens: int
    """Tokens scanned, those with NaN or infinite activations among them."""
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
    top: Mapping[str, TopSums]
    """By polarity, those that are recorded."""
    token_sums: Array
    """(V, U) float64"""


class Accumulator(Protocol):
    """The running state of one module."""

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) torch tensor in."""
        ...

    def sums(self) -> UnitSums: ...

    def uniform(self) -> Mapping[int, UniformRows]:
        """The uniformly kept sequences, by seq_id."""
        ...
