"""What a recording keeps by its settings alone: the polarities, and the sequences that are kept for every unit alike."""

import numpy as np
import numpy.typing as npt

from stages.evidence import SPLITS, split_of
from stages.settings import PerSplit, Record

Ids = npt.NDArray[np.int64]


def polarities(config: Record, signed: bool) -> tuple[str, ...]:
    """The recorded polarities of units that can, or cannot, be negative; each once, + first."""
    return tuple(polarity for polarity in ("+", "-") if polarity in config.polarities and (signed or polarity == "+"))


def counts(setting: PerSplit) -> tuple[int, ...]:
    """A setting's numbers in the order of SPLITS."""
    return tuple(int(getattr(setting, split)) for split in SPLITS)


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
