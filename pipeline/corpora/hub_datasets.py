"""Data sets of the Hugging Face hub, read as a stream through the optional `datasets` package."""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.config import Corpus
from pipeline.corpora.document import Document, in_pieces
from pipeline.errors import UserError
from pipeline.subjects.loading.hub import resolve_on_hub

NAME = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[^@/\s]+))?(/(?P<subset>[^@/\s]+))?")


@dataclass(frozen=True)
class HubDataset:
    """A data set as the run file names it."""

    name: str
    revision: str
    subset: str | None
    """The configuration, such as `20231101.en`, where the data set has several."""


def parse_hub(source: str) -> HubDataset:
    """`hub:NAME`, `hub:OWNER/NAME`, each with `@REVISION` and `/CONFIG` where wanted.

    Raises:
        UserError: another form.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise UserError(f"corpus.source = {source!r} is not of the form hub:OWNER/NAME[@REVISION][/CONFIG]")
    return HubDataset(match["name"], match["revision"] or "main", match["subset"])


def hub_commit(source: str) -> str:
    """The commit that the data set stands at."""
    dataset = parse_hub(source)
    return resolve_on_hub(dataset.name, dataset.revision, "dataset")


def read_hub(config: Corpus) -> Iterator[Document]:
    """The rows of a data set's split, one document each, in the order of the data set.

    Raises:
        UserError: `datasets` is not installed, no such data set, subset, split or column, or the stream breaks off.
    """
    dataset = parse_hub(config.source)
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"corpus.source = {config.source!r} needs the package datasets: pip install 'neurogloss[hub]' (or datasets)"
        )
    commit = hub_commit(config.source)
    row = 0
    with _told_to_the_user(config, lambda: row):
        for record in _stream(dataset, commit, config.hub_split):
            if config.text_field not in record:
                raise UserError(
                    f"{config.source} has no column {config.text_field!r}; set corpus.text_field to one of: "
                    f"{', '.join(record)}"
                )
            text = record[config.text_field]
            if text is not None and not isinstance(text, str):
                raise UserError(
                    f"{config.source} row {row}: the column {config.text_field!r} holds no text; see corpus.text_field"
                )
            yield from in_pieces(f"{dataset.name}/{config.hub_split}:{row}", text or "")
            row += 1


def _stream(dataset: HubDataset, commit: str, split: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(dataset.name, dataset.subset, split=split, revision=commit, streaming=True)


@contextmanager
def _told_to_the_user(config: Corpus, row: Any) -> Iterator[None]:
    """Errors of the stream become one kind: `datasets`, fsspec and aiohttp have no common base for theirs."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"corpus.source = {config.source!r}, corpus.hub_split = {config.hub_split!r}: reading stopped at row "
            f"{row()} ({type(error).__name__}: {error}); check the name, the subset, the split and the network"
        ) from error
