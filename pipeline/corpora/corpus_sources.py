"""Open the corpus that a run file names, and say what identifies it."""

import hashlib
from collections.abc import Iterator
from itertools import chain

from pipeline.config import Corpus
from pipeline.corpora import wikipedia
from pipeline.corpora.hub_datasets import hub_commit, read_hub
from pipeline.corpora.text_files import corpus_files, read_file
from pipeline.corpora.windows import Document
from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import content_hash

EDGE = 1 << 16
"""Bytes hashed at the start and at the end of a file."""


def open_corpus(config: Corpus) -> Iterator[Document]:
    """The documents of a corpus, as a stream in a fixed order and in bounded memory.

    A text file is one document; JSONL, Parquet and hub data sets hold one in each record. Blank documents are passed
    over. A document of more than about 130,000 characters comes in several pieces. Reading ends after
    `max_documents` documents.

    Raises:
        UserError: while opening or reading; it names the file and the line or row, and what to do.
    """
    started = 0
    for document in _all_documents(config):
        if not document.continues:
            started += 1
            if config.max_documents is not None and started > config.max_documents:
                return
        yield document


def check_corpus(config: Corpus) -> None:
    """Read the first document, so that a corpus that cannot be read is told before any work. Raises UserError: nothing can be read."""
    if next(open_corpus(config), None) is None:
        raise UserError(
            f"corpus.source = {config.source!r} holds no text: every document is empty; give another corpus"
        )


def corpus_identity(config: Corpus) -> str:
    """What identifies the corpus's content in a fingerprint, found without reading all of it.

    Of files: SHA-256 over each file's name within the corpus, its size, and its first and last 64 KiB. A change in the
    middle of a larger file that keeps its size is not noticed; moving or copying the corpus changes nothing. Of a
    package: the hash of the file. Of a hub data set: the commit.

    Raises:
        UserError: there is no such corpus.
    """
    if config.source == wikipedia.SPEC:
        return content_hash(wikipedia.sample_file())
    if config.source.startswith("hub:"):
        return hub_commit(config.source)
    digest = hashlib.sha256()
    for name, file in corpus_files(config.source):
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        try:
            with file.open("rb") as stream:
                digest.update(stream.read(EDGE))
                stream.seek(max(EDGE, size - EDGE))
                digest.update(stream.read(EDGE))
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}); check its permissions") from None
    return digest.hexdigest()


def _all_documents(config: Corpus) -> Iterator[Document]:
    if config.source == wikipedia.SPEC:
        return wikipedia.read_wikipedia()
    if config.source.startswith("hub:"):
        return read_hub(config)
    files = corpus_files(config.source)
    return chain.from_iterable(read_file(name, file, config.text_field) for name, file in files)
