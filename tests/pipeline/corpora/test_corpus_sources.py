"""A run file's corpus is opened, identified and refused in one way, whatever its kind."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Corpus
from pipeline.corpora.corpus_sources import EDGE, check_corpus, corpus_identity, open_corpus
from pipeline.errors import UserError


def _corpus(source: object, **settings: Any) -> Corpus:
    return Corpus(source=str(source), **settings)


def _write(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text("A text file.")
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": f"line {number}"}) + "\n" for number in range(5)))
    return folder


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    documents = list(open_corpus(_corpus(_write(tmp_path / "texts"))))
    assert [document.doc_id for document in documents] == ["a.txt", *(f"b.jsonl:{line}" for line in range(1, 6))]


def test_reading_ends_after_max_documents(tmp_path: Path) -> None:
    documents = list(open_corpus(_corpus(_write(tmp_path / "texts"), max_documents=3)))
    assert [document.text for document in documents] == ["A text file.", "line 0", "line 1"]


def test_pieces_of_a_long_document_count_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A line of a long text.\n\n" * 100_000)
    (tmp_path / "b.txt").write_text("Another.")
    documents = list(open_corpus(_corpus(tmp_path, max_documents=1)))
    assert len(documents) > 1
    assert {document.doc_id for document in documents} == {"a.txt"}


def test_the_packaged_sample_is_a_corpus() -> None:
    first = next(open_corpus(_corpus("package:gensim-wikipedia")))
    assert first.doc_id == "wikipedia/Anarchism"
    assert len(corpus_identity(_corpus("package:gensim-wikipedia"))) == 64


def test_an_unknown_package_is_told() -> None:
    for call in (corpus_identity, check_corpus):
        with pytest.raises(UserError, match=r"package:no-such.*package:gensim-wikipedia"):
            call(_corpus("package:no-such"))


@pytest.mark.parametrize("content", ["", " \n\n\t"])
def test_a_corpus_without_text_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(UserError, match=r"a\.txt.*holds no text"):
        check_corpus(_corpus(tmp_path / "a.txt"))


def test_a_corpus_that_can_be_read_passes_the_check(tmp_path: Path) -> None:
    check_corpus(_corpus(_write(tmp_path / "texts")))


def test_the_identity_follows_names_and_content_and_not_place_or_time(tmp_path: Path) -> None:
    original = corpus_identity(_corpus(_write(tmp_path / "texts")))
    moved = Path(shutil.copytree(tmp_path / "texts", tmp_path / "moved"))
    os.utime(moved / "a.txt", (1, 1))
    (moved / "notes.pdf").write_text("not part of the corpus")
    assert corpus_identity(_corpus(moved)) == original
    (moved / "a.txt").write_text("A text File.")
    assert corpus_identity(_corpus(moved)) != original
    (moved / "a.txt").write_text("A text file.")
    (moved / "a.txt").rename(moved / "c.txt")
    assert corpus_identity(_corpus(moved)) != original


def test_the_identity_of_a_large_file_sees_both_ends_and_the_size(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    content = bytearray(b"x" * (4 * EDGE))
    seen = set()
    for place in (None, 0, EDGE - 1, 3 * EDGE, 4 * EDGE - 1):
        changed = bytearray(content)
        if place is not None:
            changed[place] = ord("y")
        file.write_bytes(changed)
        seen.add(corpus_identity(_corpus(file)))
    file.write_bytes(content + b"x")
    seen.add(corpus_identity(_corpus(file)))
    assert len(seen) == 6


@pytest.mark.parametrize("call", [corpus_identity, check_corpus])
def test_a_missing_corpus_is_told(tmp_path: Path, call: Any) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        call(_corpus(tmp_path / "missing"))
