"""The sequences of the corpus as the stages take them, and which of them are kept for a unit.

- `top`: per unit, polarity and split, the `record.top[split]` sequences with the largest maxima (of -x for the polarity
  '-'), the top-k. The order is total: activation falling, then seq_id rising. So neither the batches nor the shards decide
  between equals. With `record.distinct`, of the sequences whose peaks have the same neighbourhood only the first counts.
  Of units that are recorded as sparse, only sequences on which they fire are kept.
- `random`: the first `record.random[split]` sequences of each split in seq_id order. The sequences of a split are shuffled, so this
  is a uniform sample of it, the same for every unit.
- `quantile`: the sequences with seq_id < `record.pool` are the pool, a uniform sample too. A pool sequence that is
  neither `random` nor among the unit's `top` belongs to the band of its maximum between the unit's token-level quantile
  boundaries: below the first, between two, or from the last on. From the lowest band to the highest, the first
  `record.per_band[split]` sequences of each split in seq_id order are kept.

A sequence can be both `top` and `random`: it is then two rows of the same split. Maxima are taken over the positions
that count (see `recorded_batch.counted_positions`) and have a finite activation; a sequence without any is no exemplar.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.execution.stage import Shard, numbered_shards
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import TokenBatch
from stages.evidence import SPLIT_OF_RESIDUE, SPLITS
from stages.settings import PerSplit, Record

POLARITIES = ("+", "-")
SIGNS = {"+": 1, "-": -1}
WHOLLY_BINNED = 128
"""Sequences up to this seq_id are all in the histograms."""
NO_SEQUENCE = 2**63 - 1
"""seq_id of an empty slot: every sequence comes before it."""

Ids = npt.NDArray[np.int64]
TokenIds = Sequence[int] | npt.NDArray[np.int32]
Sequences = Iterable[tuple[int, TokenIds]]
"""seq_id and token ids of some sequences."""
Numbered = TypeVar("Numbered", bound=tuple[Any, ...])


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
    wanted = counts(config.random)
    return first_of_splits(len(SPLIT_OF_RESIDUE) * max(wanted), wanted)


def pool_ids(config: Record) -> Ids:
    """The seq_ids among which `quantile` exemplars are looked for, rising; none if no band wants any."""
    wanted = config.pool if any(counts(config.per_band)) else 0
    return np.setdiff1d(np.arange(wanted, dtype=np.int64), random_ids(config))


def uniform_ids(config: Record) -> Ids:
    """The seq_ids that are kept for every unit, rising: the `random` ones and the pool."""
    return np.union1d(random_ids(config), pool_ids(config))


def split_numbers(seq_ids: npt.ArrayLike) -> Ids:
    """Positions in SPLITS of the splits of some sequences."""
    numbers = np.asarray([SPLITS.index(split) for split in SPLIT_OF_RESIDUE], np.int64)
    return numbers[np.asarray(seq_ids, np.int64) % len(numbers)]


def first_of_splits(total: int, wanted: Sequence[int]) -> Ids:
    """Of the seq_ids below `total` the first so many of each split, rising."""
    seq_ids = np.arange(total, dtype=np.int64)
    splits = split_numbers(seq_ids)
    return np.sort(np.concatenate([seq_ids[splits == number][:count] for number, count in enumerate(wanted)]))


def in_histogram(seq_ids: Ids) -> npt.NDArray[np.bool_]:
    """Which sequences the histograms of dense units are taken over: the first 128, then 32 of every 256.

    The corpus is shuffled, so they are a uniform sample, with the same share of each split. Counting all of them would
    take a third of the time of a pass. They come together, so that the histograms of all units are seldom fetched into
    the cache. All other statistics are taken over all sequences.
    """
    return (seq_ids < WHOLLY_BINNED) | (seq_ids // 32 % 8 == 0)


def sequence_shards(seq_ids: Ids, size: int) -> list[Shard]:
    """Shards of the sequences within ranges of `size` seq_ids, of those that there are, which rise."""
    end = int(seq_ids[-1]) + 1 if seq_ids.size else 0
    return numbered_shards(
        {"start": start, "stop": min(start + size, end)} for start in (np.unique(seq_ids // size) * size).tolist()
    )


def corpus_ids(tables: Tables) -> Ids:
    """The seq_ids of the corpus, rising; some may be missing among them (see `document_splits`)."""
    return np.sort(tables.read(CORPUS, columns=["seq_id"])["seq_id"].to_numpy())


def sequences_between(tables: Tables, start: int, stop: int) -> Iterator[tuple[int, TokenIds]]:
    """The sequences with the seq_ids start to stop - 1 in the order of the corpus, which is that of the seq_ids.

    They are read while they are iterated over, some at a time.
    """
    seq_id = pc.field("seq_id")
    for batch in tables.batches(CORPUS, (seq_id >= start) & (seq_id < stop), ["seq_id", "token_ids"]):
        lists = batch.column("token_ids")
        flat = lists.flatten().to_numpy()
        ends = np.cumsum(lists.value_lengths().to_numpy()).tolist()
        parts = [flat[first:last] for first, last in pairwise([0, *ends])]
        yield from zip(batch.column("seq_id").to_pylist(), parts, strict=True)


def on_grid(rows: Iterable[Numbered], batch_size: int) -> Iterator[list[Numbered]]:
    """Tuples that begin with a seq_id, in batches: b * batch_size to (b + 1) * batch_size - 1, as many of them as there are.

    So a batch is the same wherever reading begins, even where seq_ids are missing.
    """
    return (list(batch) for _, batch in groupby(rows, key=lambda row: row[0] // batch_size))


def padded_batches(sequences: Sequences, batch_size: int) -> Iterator[TokenBatch]:
    """Batches of sequences, by rising seq_id, padded on the right with 0; see `on_grid`."""
    for batch in on_grid(sequences, batch_size):
        lengths = np.asarray([len(ids) for _, ids in batch], dtype=np.int64)
        token_ids = np.zeros((len(batch), int(lengths.max())), np.int64)
        for row, (_, ids) in enumerate(batch):
            token_ids[row, : len(ids)] = ids
        yield TokenBatch(token_ids, lengths, np.asarray([seq_id for seq_id, _ in batch], dtype=np.int64))


def token_ids_of(tables: Tables, seq_ids: Iterable[int]) -> dict[int, list[int]]:
    """Token ids of some sequences by seq_id."""
    rows = tables.numbered(CORPUS, seq_ids, ["seq_id", "token_ids"])
    return dict(zip(rows["seq_id"].to_pylist(), rows["token_ids"].to_pylist(), strict=True))


def special_ids(config: RunConfig) -> frozenset[int]:
    """The special tokens of the subject's tokenizer."""
    from pipeline.subjects.loading.model_loading import load_tokenizer

    subject = config.subject
    return frozenset(load_tokenizer(subject.model, subject.trust_remote_code).all_special_ids)
