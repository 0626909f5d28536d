"""What every module needs to know of a batch, worked out once: the positions that count, the tokens whose mean activation is
recorded, and the keys of neighbourhoods.

Shapes: B sequences, T tokens, padded on the right.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.subjects.activations import TokenBatch
from stages.evidence import SPLITS
from stages.record.sequences import in_histogram, split_numbers
from stages.settings import Record
from stages.token_means import REST

Ints = npt.NDArray[np.int64]

INCREMENT = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, odd: the increment of SplitMix64 (Steele, Lea and Flood 2014)."""
MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""The multipliers of its finaliser."""
BYTES_PER_SUM = 8
GRID_BITS = 30
"""Activations are rounded to multiples of 2**-GRID_BITS before they are added up as float64. As long as a sum stays
below 2**(53 - GRID_BITS) = 8.4 million, no addition rounds, so the order of adding cannot matter."""
GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
"""Adding and subtracting this float64 rounds to a multiple of 2**-GRID_BITS."""


@dataclass(frozen=True)
class TokenTable:
    """The tokens whose mean activation is recorded, counted beforehand over the `explain` sequences of the whole corpus.

    Memory is bounded by `record.token_memory_mb`: a sum for each token and unit takes 8 bytes. If not all tokens fit, those with
    at least a certain count are covered, the smallest count for which they fit, and the others have one sum together.
    """

    token_ids: Ints
    """(V,) ids, rising."""
    min_count: int
    """Every token with at least this many occurrences is covered."""

    def rows(self, token_ids: Ints) -> Ints:
        """The row of each token; of any shape. What is not covered has that of REST, which comes first, or -1 where there is none."""
        if not self.token_ids.size:
            return np.full(token_ids.shape, -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.token_ids, token_ids), self.token_ids.size - 1)
        other = 0 if self.token_ids[0] == REST else -1
        return np.where(self.token_ids[place] == token_ids, place, other).astype(np.int64)


def count_tokens(batches: Iterable[TokenBatch], config: Record, special_ids: Collection[int] = ()) -> tuple[Ints, Ints]:
    """Token ids, rising, and their occurrences at the positions of the `explain` sequences that count."""
    occurrences = np.zeros(0, np.int64)
    for batch in batches:
        counted = counted_positions(batch.token_ids, batch.lengths, config, special_ids)
        counted &= (split_numbers(batch.seq_ids) == SPLITS.index("explain"))[:, None]
        found = np.bincount(batch.token_ids[counted], minlength=len(occurrences))
        found[: len(occurrences)] += occurrences
        occurrences = found
    ids = np.flatnonzero(occurrences)
    return ids, occurrences[ids]


def cover_tokens(ids: Ints, occurrences: Ints, units: int, config: Record) -> TokenTable:
    """The tokens that are covered for a number of units, all modules together."""
    capacity, least = config.token_memory_mb * 2**20 // (BYTES_PER_SUM * max(units, 1)), 1
    if len(ids) > capacity:
        least = int(np.sort(occurrences)[::-1][max(capacity - 1, 0)]) + 1  # one row is that of the others
    covered = ids[occurrences >= least]
    return TokenTable(covered if len(covered) == len(ids) else np.append(REST, covered), least)


@dataclass(frozen=True)
class Batch:
    """The sequences of a batch, as every module needs them."""

    lengths: Ints
    """(B,) real tokens."""
    seq_ids: Ints
    """(B,)"""
    splits: Ints
    """(B,) positions in SPLITS."""
    counted: npt.NDArray[np.bool_]
    """(B, T) positions that the statistics are taken over, see `counted_positions`."""
    binned: npt.NDArray[np.bool_]
    """(B,) sequences that the histograms of dense units are taken over."""
    places: Ints
    """(N,) the counted positions of one sequence after another, each from its sequence's start."""
    place_starts: Ints
    """(B + 1,) where in `places` each sequence starts, and the end."""
    keys: Ints
    """(B, T) keys of the neighbourhoods, 0 where record.distinct is off."""
    positions: Ints
    """Positions in the flattened (B * T,) batch whose activation counts for the token table, equal tokens together."""
    starts: Ints
    """Where in `positions` each distinct token starts, and the end."""
    token_rows: Ints
    """Row of each distinct token in the token table."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """What a backend makes once for all modules: copies of the above on a device, scratch buffers."""


def make_batch(batch: TokenBatch, config: Record, tokens: TokenTable, special_ids: Collection[int] = ()) -> Batch:
    """Prepare a batch, padded with anything."""
    token_ids, splits = batch.token_ids, split_numbers(batch.seq_ids)
    counted = counted_positions(token_ids, batch.lengths, config, special_ids)
    sequence, places = np.nonzero(counted)
    explain = (splits == SPLITS.index("explain"))[:, None]
    rows = np.where(counted & explain, tokens.rows(token_ids), -1).ravel()
    order = np.argsort(rows, kind="stable")
    order = order[np.searchsorted(rows[order], 0) :]
    distinct, starts = np.unique(rows[order], return_index=True)
    keys = neighbourhood_keys(token_ids, batch.lengths, config.distinct_context)
    return Batch(
        lengths=batch.lengths,
        seq_ids=batch.seq_ids,
        splits=splits,
        counted=counted,
        binned=in_histogram(batch.seq_ids),
        places=places,
        place_starts=np.searchsorted(sequence, np.arange(len(splits) + 1)),
        keys=keys if config.distinct else np.zeros_like(keys),
        positions=order,
        starts=np.append(starts, len(order)).astype(np.int64),
        token_rows=distinct.astype(np.int64),
    )


def counted_positions(
    token_ids: npt.NDArray[Any], lengths: Ints, config: Record, special_ids: Collection[int] = ()
) -> npt.NDArray[np.bool_]:
    """The (B, T) positions that statistics are taken over, those of real tokens from `skip_positions` on.

    Args:
        special_ids: the tokenizer's special tokens, which do not count where `record.skip_special` is on.
    """
    place = np.arange(token_ids.shape[1])
    counted = (place >= config.skip_positions) & (place < lengths[:, None])
    if config.skip_special and special_ids:
        counted &= ~np.isin(token_ids, np.fromiter(special_ids, np.int64))
    return counted


def neighbourhood_keys(token_ids: Ints, lengths: Ints, context: int) -> Ints:
    """(B, T) keys of the tokens around each position, by which sequences with the same peak are told to be the same.

    The key of position t is a hash of the token ids at t - context .. t + context; a place beyond the sequence's ends
    counts as the id -1. So equal keys mean equal tokens at equal distances from the peak, up to collisions of 64-bit
    hashes, and a key is the same on every machine and in every batch. Keys of the padding mean nothing.
    """
    batch, length = token_ids.shape
    real = np.arange(length) < lengths[:, None]
    padded = np.pad(np.where(real, token_ids, -1), ((0, 0), (context, context)), constant_values=-1)
    keys = np.zeros((batch, length), np.uint64)
    for place in range(2 * context + 1):
        keys = _mixed(keys * INCREMENT + padded[:, place : place + length].astype(np.uint64) + INCREMENT)
    return keys.view(np.int64)


def _mixed(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    keys = (keys ^ (keys >> np.uint64(30))) * MIX[0]
    keys = (keys ^ (keys >> np.uint64(27))) * MIX[1]
    return keys ^ (keys >> np.uint64(31))
