"""Which sequences are kept for a unit.

- `top`: per unit, polarity and split, the `record.top[split]` sequences with the largest maxima (of -x for the polarity
  '-'), the top-k. The order is total: activation falling, then seq_id rising. So neither the batches nor the shards decide
  between equals. With `record.distinct`, of the sequences whose peaks have the same neighbourhood only the first counts.
  Of units that are recorded as sparse, only sequences on which they fire are kept.
- `random`: the first `record.random[split]` sequences of each split in seq_id order. The corpus is shuffled, so this is
  a uniform sample, the same for every unit.
- `quantile`: the sequences with seq_id < `record.pool` are the pool, a uniform sample too. A pool sequence that is
  neither `random` nor among the unit's `top` belongs to the band of its maximum between the unit's token-level quantile
  boundaries: below the first, between two, or from the last on. From the lowest band to the highest, the first
  `record.per_band[split]` sequences of each split in seq_id order are kept.

A sequence can be both `top` and `random`: it is then two rows of the same split. Maxima are taken over the positions
that count (see `recorded_batch.counted_positions`) and have a finite activation; a sequence without any is no exemplar.
"""

import numpy as np
import numpy.typing as npt

from stages.evidence import SPLITS, split_of
from stages.settings import PerSplit, Record

POLARITIES = ("+", "-")
SIGNS = {"+": 1, "-": -1}
WHOLLY_BINNED = 128
"""Sequences up to this seq_id are all in the histograms."""
NO_SEQUENCE = 2**63 - 1
"""seq_id of an empty slot: every sequence comes before it."""

Ids = npt.NDArray[np.int64]


def polarities(config: Record, signed: bool) -> tuple[str, ...]:
    """The recorded polarities of units that can, or cannot, be negative; each once, + first."""
    return tuple(polarity for polarity in POLARITIES if polarity in config.polarities and (signed or polarity == "+"))


def counts(setting: PerSplit) -> tuple[int, ...]:
    """A setting's numbers in the order of SPLITS."""
    return tuple(int(getattr(setting, split)) for split in SPLITS)


def slot_starts(config: Record) -> Ids:
    """(S + 1,) where the slots of each split begin among the K top-k slots of a unit, and their end."""
    return np.concatenate([[0], np.cumsum(counts(config.top))]).astype(np.int64)


def random_ids(config: Record) -> Ids:
    """The seq_ids of the `random` sequences, rising, whether or not the corpus has that many."""
    missing = dict(zip(SPLITS, counts(config.random), strict=True))
    chosen: list[int] = []
    seq_id = 0
    while any(missing.values()):
        if missing[split_of(seq_id)]:
            missing[split_of(seq_id)] -= 1
            chosen.append(seq_id)
        seq_id += 1
    return np.asarray(chosen, dtype=np.int64)


def pool_ids(config: Record) -> Ids:
    """The seq_ids among which `quantile` exemplars are looked for, rising; none if no band wants any."""
    wanted = config.pool if any(counts(config.per_band)) else 0
    return np.setdiff1d(np.arange(wanted, dtype=np.int64), random_ids(config))


def uniform_ids(config: Record) -> Ids:
    """The seq_ids that are kept for every unit, rising: the `random` ones and the pool."""
    return np.union1d(random_ids(config), pool_ids(config))


def split_numbers(seq_ids: npt.ArrayLike) -> Ids:
    """Positions in SPLITS of the splits of some sequences."""
    distinct, places = np.unique(np.asarray(seq_ids, dtype=np.int64), return_inverse=True)
    numbers = np.asarray([SPLITS.index(split_of(seq_id)) for seq_id in distinct.tolist()], dtype=np.int64)
    return numbers[places]


def in_histogram(seq_ids: Ids) -> npt.NDArray[np.bool_]:
    """Which sequences the histograms of dense units are taken over: the first 128, then 32 of every 256.

    The corpus is shuffled, so they are a uniform sample, with the same share of each split. Counting all of them would
    take a third of the time of a pass. They come together, so that the histograms of all units are seldom fetched into
    the cache. All other statistics are taken over all sequences.
    """
    return (seq_ids < WHOLLY_BINNED) | (seq_ids // 32 % 8 == 0)
