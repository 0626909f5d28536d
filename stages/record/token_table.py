"""The tokens whose mean activation is recorded, counted beforehand over the `explain` sequences of the whole corpus.

Memory is bounded by `record.token_memory_mb`: a sum for each token and unit takes 8 bytes. If not all tokens fit, those with at
least a certain count are covered, the smallest count for which they fit. The table of top tokens is exact for these.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.evidence import SPLITS
from stages.record.kept_sequences import split_numbers
from stages.settings import Record

BYTES_PER_SUM = 8
GRID_BITS = 30
"""Activations are rounded to multiples of 2**-GRID_BITS before they are added up as float64. As long as a sum stays
below 2**(53 - GRID_BITS) = 8.4 million, no addition rounds, so the order of adding cannot matter."""
GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
"""Adding and subtracting this float64 rounds to a multiple of 2**-GRID_BITS."""


@dataclass(frozen=True)
class TokenTable:
    """The covered tokens."""

    token_ids: npt.NDArray[np.int64]
    """(V,) ids, rising."""
    min_count: int
    """Every token with at least this many occurrences is covered."""

    def rows(self, token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The row of each token, -1 where it is not covered; of any shape."""
        if not self.token_ids.size:
            return np.full(token_ids.shape, -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.token_ids, token_ids), self.token_ids.size - 1)
        return np.where(self.token_ids[place] == token_ids, place, -1).astype(np.int64)


def count_tokens(
    corpus: Iterable[pa.RecordBatch], config: Record, special_ids: Collection[int] = ()
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token ids, rising, and their occurrences in the `explain` sequences, skipped positions and special tokens left out.

    Args:
        corpus: batches with the columns seq_id and token_ids.
        special_ids: the tokenizer's special tokens, which do not count where `record.skip_special` is on.
    """
    ids, occurrences = np.zeros(0, np.int64), np.zeros(0, np.int64)
    special = np.fromiter(special_ids if config.skip_special else (), np.int64)
    for batch in corpus:
        column = batch.column("token_ids")
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        flat = column.flatten().to_numpy(zero_copy_only=False)
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        counted = np.arange(len(flat)) - starts >= config.skip_positions
        counted &= ~np.isin(flat, special)
        splits = split_numbers(batch.column("seq_id").to_numpy(zero_copy_only=False))
        counted &= np.repeat(splits == SPLITS.index("explain"), lengths)
        both = np.concatenate([ids, flat[counted].astype(np.int64)])
        weights = np.concatenate([occurrences, np.ones(int(counted.sum()), np.int64)])
        ids, inverse = np.unique(both, return_inverse=True)
        occurrences = np.bincount(inverse, weights, len(ids)).astype(np.int64)
    return ids, occurrences


def cover_tokens(
    ids: npt.NDArray[np.int64], occurrences: npt.NDArray[np.int64], units: int, config: Record
) -> TokenTable:
    """The tokens that are covered for a number of units, all modules together."""
    capacity = config.token_memory_mb * 2**20 // (BYTES_PER_SUM * max(units, 1))
    least = config.min_token_count if config.top_tokens else np.iinfo(np.int64).max
    frequent = np.sort(occurrences[occurrences >= least])[::-1]
    if len(frequent) > capacity:
        least = int(frequent[capacity]) + 1
    return TokenTable(ids[occurrences >= least], least)
