"""Data sets of the Hugging Face hub, read as a stream through the optional `datasets` package."""

import re
from collections.abc import Iterator

from pipeline.config import Corpus
from pipeline.corpora.windows import Document, in_pieces
from pipeline.errors import UserError
from pipeline.subjects.loading.hub import resolve_on_hub

NAME = re.compile(r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[^@/\s]+))?(/(?P<subset>[^@/\s]+))?")


def parse_hub(source: str) -> tuple[str, str, str | None]:
    """Name, revision and subset (the configuration, such as `20231101.en`) of `hub:[OWNER/]NAME[@REVISION][/CONFIG]`.

    Raises:
        UserError: another form.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise UserError(f"corpus.source = {source!r} is not of the form hub:OWNER/NAME[@REVISION][/CONFIG]")
    return match["name"], match["revision"] or "main", match["subset"]


def hub_commit(source: str) -> str:
    """The commit that the data set stands at."""
    name, revision, _ = parse_hub(source)
    return resolve_on_hub(name, revision, "dataset")


def read_hub(config: Corpus) -> Iterator[Document]:
    """The rows of a data set's split, one document each, in the order of the data set.

    Raises:
        UserError: `datasets` is not installed, no such data set, subset, split or column, or the stream breaks off.
    """
    name, _, subset = parse_hub(config.source)
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"corpus.source = {config.source!r} needs the package datasets: pip install 'neurogloss[hub]' (or datasets)"
        ) from None
    datasets.disable_progress_bars()
    commit, split, row = hub_commit(config.source), config.hub_split, 0
    try:
        for record in datasets.load_dataset(name, subset, split=split, revision=commit, streaming=True):
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
            yield from in_pieces(f"{name}/{split}:{row}", text or "")
            row += 1
    except UserError:
        raise
    except Exception as error:  # of datasets, fsspec and aiohttp, which have no common class for theirs
        raise UserError(
            f"corpus.source = {config.source!r}, corpus.hub_split = {split!r}: reading stopped at row "
            f"{row} ({type(error).__name__}: {error}); check the name, the subset, the split and the network"
        ) from error
