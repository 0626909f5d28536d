"""The sequences of the corpus, as the stages of the record take them."""

from collections.abc import Iterable

import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.schemas import CORPUS
from pipeline.stage import Shard
from pipeline.tables import Tables


def sequence_shards(total: int, size: int) -> list[Shard]:
    """Shards of at most `size` of the sequences with the seq_ids 0 to total - 1."""
    return [
        Shard(f"part-{number:05d}", {"start": start, "stop": min(start + size, total)})
        for number, start in enumerate(range(0, total, size))
    ]


def token_ids_of(tables: Tables, seq_ids: Iterable[int]) -> dict[int, list[int]]:
    """Token ids of some sequences by seq_id."""
    rows = tables.read(CORPUS, ds.field("seq_id").isin(sorted(set(seq_ids))), ["seq_id", "token_ids"])
    return dict(zip(rows["seq_id"].to_pylist(), rows["token_ids"].to_pylist(), strict=True))


def special_ids(config: RunConfig) -> frozenset[int]:
    """The special tokens of the subject's tokenizer."""
    from pipeline.subjects.load import load_tokenizer

    subject = config.subject
    return frozenset(load_tokenizer(subject.model, subject.trust_remote_code).all_special_ids)
