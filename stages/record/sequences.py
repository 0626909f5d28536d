"""The sequences of the corpus: shards of them, batches of them, and their token ids."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

import numpy as np
import numpy.typing as npt
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.execution.stage import Shard, numbered_shards
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import TokenBatch

TokenIds = Sequence[int] | npt.NDArray[np.int32]
Sequences = Iterable[tuple[int, TokenIds]]
"""seq_id and token ids of some sequences."""


def sequence_shards(total: int, size: int) -> list[Shard]:
    """Shards of at most `size` of the sequences with the seq_ids 0 to total - 1."""
    return numbered_shards({"start": start, "stop": min(start + size, total)} for start in range(0, total, size))


def sequences_between(tables: Tables, start: int, stop: int) -> Iterator[tuple[int, TokenIds]]:
    """The sequences with the seq_ids start to stop - 1 in the order of the corpus, which is that of the seq_ids.

    They are read while they are iterated over, some at a time.
    """
    seq_id = ds.field("seq_id")
    for batch in tables.batches(CORPUS, (seq_id >= start) & (seq_id < stop), ["seq_id", "token_ids"]):
        lists = batch.column("token_ids")
        flat = lists.flatten().to_numpy()
        ends = np.cumsum(lists.value_lengths().to_numpy()).tolist()
        parts = [flat[first:last] for first, last in pairwise([0, *ends])]
        yield from zip(batch.column("seq_id").to_pylist(), parts, strict=True)


def padded_batches(sequences: Sequences, batch_size: int) -> Iterator[TokenBatch]:
    """Batches of sequences, padded on the right with 0."""
    rest = iter(sequences)
    while batch := list(islice(rest, batch_size)):
        lengths = np.asarray([len(ids) for _, ids in batch], dtype=np.int64)
        token_ids = np.zeros((len(batch), int(lengths.max())), np.int64)
        for row, (_, ids) in enumerate(batch):
            token_ids[row, : len(ids)] = ids
        yield TokenBatch(token_ids, lengths, np.asarray([seq_id for seq_id, _ in batch], dtype=np.int64))


def token_ids_of(tables: Tables, seq_ids: Iterable[int]) -> dict[int, list[int]]:
    """Token ids of some sequences by seq_id."""
    rows = tables.read(CORPUS, ds.field("seq_id").isin(sorted(set(seq_ids))), ["seq_id", "token_ids"])
    return dict(zip(rows["seq_id"].to_pylist(), rows["token_ids"].to_pylist(), strict=True))


def special_ids(config: RunConfig) -> frozenset[int]:
    """The special tokens of the subject's tokenizer."""
    from pipeline.subjects.loading.model_loading import load_tokenizer

    subject = config.subject
    return frozenset(load_tokenizer(subject.model, subject.trust_remote_code).all_special_ids)
