"""Data sets of the hub: the name is read, the commit is the identity, and what is missing is told."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from pipeline.config import Corpus
from pipeline.corpora.corpus_sources import corpus_identity, open_corpus
from pipeline.corpora.hub_datasets import parse_hub
from pipeline.errors import UserError
from pipeline.subjects.loading.hub import resolve_on_hub
from tests.pipeline.subjects.loading.small_hub import COMMIT, small_hub

SOURCE = f"hub:org/texts@{COMMIT}/plain"
ROWS: list[dict[str, Any]] = [{"text": "one", "id": 1}, {"text": None, "id": 2}, {"text": "three", "id": 3}]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:texts", ("texts", "main", None)),
        ("hub:org/texts", ("org/texts", "main", None)),
        ("hub:org/texts/20231101.en", ("org/texts", "main", "20231101.en")),
        ("hub:org/texts@v1", ("org/texts", "v1", None)),
        ("hub:org/texts@v1/en", ("org/texts", "v1", "en")),
        ("hub:texts@v1/en", ("texts", "v1", "en")),
    ],
)
def test_names_are_read(source: str, expected: tuple[str, str, str | None]) -> None:
    assert parse_hub(source) == expected


@pytest.mark.parametrize("source", ["hub:", "hub:a b", "hub:a/b/c/d", "hub:a@", "hub:a@b@c"])
def test_other_forms_are_told(source: str) -> None:
    with pytest.raises(UserError, match=r"hub:OWNER/NAME\[@REVISION\]"):
        parse_hub(source)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NEUROGLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    resolve_on_hub.cache_clear()
    with small_hub(tmp_path) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        yield
    resolve_on_hub.cache_clear()


def test_the_identity_is_the_commit(hub: None) -> None:
    assert corpus_identity(Corpus(source="hub:org/texts")) == COMMIT
    with pytest.raises(UserError, match="no dataset 'org/none'"):
        corpus_identity(Corpus(source="hub:org/none"))


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="the extra is installed")
def test_without_the_extra_its_name_is_told() -> None:
    with pytest.raises(UserError, match=r"needs the package datasets: pip install 'neurogloss\[hub\]'"):
        next(open_corpus(Corpus(source=SOURCE)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A `datasets` with one data set; what load_dataset was asked for is noted here."""
    noted: dict[str, Any] = {}

    def load_dataset(name: str, subset: str | None, **options: Any) -> list[dict[str, Any]]:
        noted.update(options, name=name, subset=subset)
        if options["split"] != "train":
            raise ValueError(f"Bad split: {options['split']}. Available splits: ['train']")
        return ROWS

    module = types.ModuleType("datasets")
    module.__spec__ = importlib.util.spec_from_loader("datasets", loader=None)
    vars(module).update(load_dataset=load_dataset, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return noted


def test_a_stream_that_breaks_off_is_told_by_row(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class PayloadError(Exception):
        """An error of no family, such as aiohttp's."""

    def load_dataset(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise PayloadError("connection lost")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", load_dataset)
    stream = open_corpus(Corpus(source=SOURCE))
    assert next(stream).text == "one"
    with pytest.raises(UserError, match=r"stopped at row 1 \(PayloadError: connection lost\)"):
        next(stream)


def test_rows_become_documents_from_a_stream_at_the_commit(asked: dict[str, Any]) -> None:
    documents = list(open_corpus(Corpus(source=SOURCE)))
    assert [(document.doc_id, document.text) for document in documents] == [
        ("org/texts/train:0", "one"),
        ("org/texts/train:2", "three"),
    ]
    wanted = {"name": "org/texts", "subset": "plain", "split": "train", "revision": COMMIT, "streaming": True}
    assert asked == wanted


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"text_field": "body"}, r"no column 'body'.*text, id"),
        ({"text_field": "id"}, "row 0: the column 'id' holds no text"),
        ({"hub_split": "test"}, r"hub_split = 'test'.*Available splits"),
    ],
)
def test_what_does_not_fit_is_told(asked: dict[str, Any], settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        list(open_corpus(Corpus(source=SOURCE, **settings)))
