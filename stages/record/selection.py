"""Which sequences are kept for a unit.

- `top`: per unit, polarity and split, the `record.top[split]` sequences with the largest maxima (of -x for the polarity
  '-'), in a total order: activation falling, then seq_id rising. So neither the batches nor the shards decide between
  equals. With `record.distinct`, of the sequences whose peaks have the same neighbourhood only the first counts. Of units
  that are recorded as sparse, only sequences on which they fire are kept.
- `random`: the first `record.random[split]` sequences of each split in seq_id order. The corpus is shuffled, so this is
  a uniform sample, the same for every unit.
- `quantile`: the sequences with seq_id < `record.pool` are the pool, a uniform sample too. A pool sequence that is
  neither `random` nor among the unit's `top` belongs to the band of its maximum between the unit's token-level quantile
  boundaries: below the first, between two, or from the last on. From the lowest band to the highest, the first
  `record.per_band[split]` sequences of each split in seq_id order are kept.

A sequence can be both `top` and `random`: it is then two rows of the same split. Maxima are taken over the positions
that count (see `counted_positions`) and have a finite activation; a sequence without any is no exemplar.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.evidence import SPLITS, split_of
from stages.settings import Record

WHOLLY_COUNTED = 128
"""Sequences up to this seq_id are all in the histograms."""
NO_SEQUENCE = 2**63 - 1
"""seq_id of an empty slot: every sequence comes before it."""

Ids = npt.NDArray[np.int64]


def split_numbers(seq_ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Positions in SPLITS of the splits of some sequences."""
    distinct, places = np.unique(np.asarray(seq_ids, dtype=np.int64), return_inverse=True)
    numbers = np.asarray([SPLITS.index(split_of(seq_id)) for seq_id in distinct.tolist()], dtype=np.int64)
    return numbers[places]


def counted_positions(
    token_ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64], config: Record, special_ids: Collection[int] = ()
) -> npt.NDArray[np.bool_]:
    """The positions that statistics are taken over, those of real tokens from `skip_positions` on.

    Args:
        token_ids: (B, T), padded on the right.
        lengths: (B,) real tokens of each sequence.
        special_ids: the tokenizer's special tokens, which do not count where `record.skip_special` is on.

    Returns:
        (B, T) mask.
    """
    place = np.arange(token_ids.shape[1])
    counted = (place >= config.skip_positions) & (place < lengths[:, None])
    if config.skip_special and special_ids:
        counted &= ~np.isin(token_ids, np.fromiter(special_ids, np.int64))
    return counted


def in_histogram(seq_ids: Ids) -> npt.NDArray[np.bool_]:
    """Which sequences the histograms of dense units are taken over: the first 128, then 32 of every 256.

    The corpus is shuffled, so they are a uniform sample, with the same share of each split; counting all of them would be
    a third of the time of a pass. They come together, so that the histograms of all units seldom have to be fetched.
    Everything else is taken over all sequences.
    """
    return (seq_ids < WHOLLY_COUNTED) | (seq_ids // 32 % 8 == 0)
