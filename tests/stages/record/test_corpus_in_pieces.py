"""No stage of the record holds the corpus: it is read some sequences at a time, with the same results."""

import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from pipeline.config.run_file import parse_config
from pipeline.schemas import CORPUS
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ModuleUnits, Receive, TokenBatch
from pipeline.subjects.kinds.precomputed_activations import corpus_places
from stages.evidence import split_of
from stages.record.scan import scan, token_table
from stages.record.sequences import sequences_between
from stages.settings import SECTIONS, Record
from stages.token_means import token_texts

SEQUENCES, LENGTH, VOCABULARY, PIECE = 100_000, 16, 3000, 1000
LIMIT = 5 * 2**20
"""Bytes that may be in memory at once; the token ids of the corpus are 6.4 MB, as Python ints 60 MB, and with their texts 25 MB."""
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (SEQUENCES, LENGTH)).astype(np.int32)


def rows(start: int) -> pa.Table:
    """Some sequences; the texts of the later half have a star. Those that end in 0 are a token shorter."""
    ids = IDS[start : start + PIECE]
    lists = [row[: LENGTH - (row[-1] == 0)] for row in ids]
    names = [f"{(start + row) // 700}.safetensors:{(start + row) % 700}" for row in range(PIECE)]
    return pa.table(
        {
            "seq_id": range(start, start + PIECE),
            "split": [split_of(number) for number in range(start, start + PIECE)],
            "doc_id": names,
            "start": [0] * PIECE,
            "token_ids": lists,
            "tokens": [[f"<{token}{'*' * (start // 50_000)}>" for token in row] for row in lists],
        },
        schema=CORPUS.schema,
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    tables = Tables(tmp_path_factory.mktemp("run"))
    pieces = (rows(start) for start in range(0, SEQUENCES, PIECE))
    publish(tables.file(CORPUS, "part-00000"), pieces, CORPUS, {})
    return tables


class Watched(Tables):
    """Tables that know how much Arrow held while their rows were read."""

    most = whole = 0

    def batches(self, *args: Any, **named: Any) -> Iterator[pa.RecordBatch]:
        before = pa.total_allocated_bytes()
        for batch in super().batches(*args, **named):
            self.most = max(self.most, pa.total_allocated_bytes() - before)
            self.whole += batch.nbytes
            yield batch

    def read(self, *args: Any, **named: Any) -> pa.Table:
        found = super().read(*args, **named)
        self.most = max(self.most, found.nbytes)
        return found


def within_limit(corpus: Tables, use: Callable[[Tables], Any]) -> Any:
    """What a function makes of the corpus; what it returns is no part of what it may hold.

    Arrow reads ahead, further on a busy machine: three quarters of all that is read is a limit that it keeps to.
    """
    watched = Watched(corpus.root)
    tracemalloc.start()
    try:
        found = use(watched)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < watched.most < watched.whole * 3 / 4
    assert most - kept < LIMIT
    return found


def test_rows_in_pieces_are_the_rows_of_the_table(corpus: Tables) -> None:
    where = (ds.field("seq_id") >= 1500) & (ds.field("seq_id") < 40_100)
    whole = corpus.read(CORPUS, where, ["seq_id", "tokens"])
    for size in (300, 5000):
        pieces = list(corpus.batches(CORPUS, where, ["seq_id", "tokens"], size))
        assert max(len(piece) for piece in pieces) <= size
        assert pa.Table.from_batches(pieces).equals(whole)


def test_a_table_that_is_not_there_has_no_pieces(tmp_path: Path) -> None:
    assert list(Tables(tmp_path).batches(CORPUS)) == []


def test_tokens_are_counted_some_sequences_at_a_time(corpus: Tables) -> None:
    config = parse_config(
        {
            "run": {"name": "r"},
            "subject": {"model": "unused", "modules": ["layers.0.mlp"]},
            "corpus": {"source": "unused.txt"},
            "record": {"min_token_count": 1},
        },
        "run.toml",
        SECTIONS,
    )
    found = within_limit(corpus, lambda tables: token_table(tables, 1, config))
    explain = [number for number in range(SEQUENCES) if split_of(number) == "explain"]
    counts = Counter(token for row in IDS[explain].tolist() for token in row[1 : LENGTH - (row[-1] == 0)])
    assert found.token_ids.tolist() == sorted(counts)


def test_a_token_s_text_is_that_of_its_first_occurrence(corpus: Tables) -> None:
    found = within_limit(corpus, token_texts)
    assert found == {token: f"<{token}>" for token in range(VOCABULARY)}


def test_places_of_sequences_are_found_some_at_a_time(corpus: Tables) -> None:
    places = within_limit(corpus, corpus_places)
    assert places == [(f"{number // 700}.safetensors", number % 700) for number in range(SEQUENCES)]


class Counting:
    """Stands in for a model and a recorder: checks the tokens of every batch and keeps nothing else."""

    def __init__(self) -> None:
        self.modules = {"m": ModuleUnits(1)}
        self.seen = 0

    def begin(self, batch: TokenBatch) -> None:
        token_ids, lengths, seq_ids = batch.token_ids, batch.lengths, batch.seq_ids
        assert seq_ids.tolist() == list(range(self.seen + 320, self.seen + 320 + len(seq_ids)))
        counted = np.arange(token_ids.shape[1]) < lengths[:, None]
        expected = IDS[seq_ids][:, : token_ids.shape[1]]
        assert np.array_equal(token_ids, expected * counted)
        assert np.array_equal(lengths, LENGTH - (IDS[seq_ids, -1] == 0))
        self.seen += len(seq_ids)

    def add(self, module: str, activations: Any) -> None: ...

    def run(self, batch: TokenBatch, receive: Receive) -> None: ...


def test_one_shard_for_the_whole_corpus_is_scanned_some_sequences_at_a_time(corpus: Tables) -> None:
    counting: Any = Counting()
    batch = Record().batch_size
    within_limit(corpus, lambda tables: scan(counting, counting, sequences_between(tables, 320, SEQUENCES), batch))
    assert counting.seen == SEQUENCES - 320
