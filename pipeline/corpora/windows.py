"""From documents to windows of token ids, and a uniform sample of these."""

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Corpus
from pipeline.errors import UserError
from pipeline.subjects.kinds.precomputed_files import activation_files

PIECE_CHARACTERS = 1 << 17
"""Longer documents come in pieces of about this many characters, so that memory stays bounded; shorter ones are tokenised together
until they have as many."""
LONGEST_CHARACTER = 4
"""Bytes, and so tokens, of a character at most."""
ROWS = 4096
"""Rows of a file of precomputed activations whose tokens are read at a time."""
_SURROGATES = re.compile("[\ud800-\udfff]")

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Document:
    """A document, or the next piece of a long one."""

    doc_id: str
    """Where it stands, such as `corpus/a.jsonl:17`; unique within the corpus."""
    text: str
    continues: bool = False
    """Whether the text goes on from the piece before, which has the same `doc_id`."""


def in_pieces(doc_id: str, text: str) -> Iterator[Document]:
    """A document cut, where it is long, after paragraphs, lines or words; nothing where it is blank.

    Halves of surrogate pairs, which are no text, become U+FFFD.
    """
    if not text or text.isspace():
        return
    text = _SURROGATES.sub("\ufffd", text)
    start = 0
    while start < len(text):
        stop = start + PIECE_CHARACTERS
        if stop < len(text):
            middle = start + PIECE_CHARACTERS // 2
            ends = ((text.rfind(end, middle, stop), length) for end, length in (("\n\n", 2), ("\n", 1), (" ", 0)))
            stop = next((place + length for place, length in ends if place >= 0), stop)
        yield Document(doc_id, text[start:stop], continues=start > 0)
        start = stop


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive tokens of one document."""

    key: int
    """Pseudo-random 64-bit number that decides whether the window is kept, and where it stands."""
    ordinal: int
    """Number of the document in the corpus."""
    start: int
    """Offset in the document, in tokens."""
    doc_id: str
    token_ids: Ids
    before: tuple[int, ...] = ()
    """The tokens in front of it, as many as a character that it begins within can have there."""


def window_key(seed: int, ordinal: int, start: int) -> int:
    """64 bits of BLAKE2b over the run's seed and the window's place: uniform, and the same however a corpus is read."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{ordinal}:{start}".encode(), digest_size=8).digest(), "big")


def cut_windows(
    pieces: Iterable[tuple[Document, Sequence[int]]], length: int, shortest: int, seed: int
) -> Iterator[Window]:
    """Cut every document into windows, none of which goes beyond a document's end.

    Args:
        pieces: documents, long ones in pieces, with the token ids of each.
        length: tokens of a window.
        shortest: the last window of a document is kept from this many tokens on.
        seed: of the windows' keys.
    """
    ordinal, start, doc_id = -1, 0, ""
    before: list[int] = []
    rest: list[int] = []
    for document, ids in pieces:
        if not document.continues:
            if len(rest) >= shortest:
                yield _window(seed, ordinal, start, doc_id, rest, before)
            ordinal, start, doc_id, before, rest = ordinal + 1, 0, document.doc_id, [], []
        rest.extend(ids)
        whole = len(rest) - len(rest) % length
        for place in range(0, whole, length):
            window = rest[place : place + length]
            yield _window(seed, ordinal, start + place, doc_id, window, before)
            before = [*before, *window][-LONGEST_CHARACTER:]
        start, rest = start + whole, rest[whole:]
    if len(rest) >= shortest:
        yield _window(seed, ordinal, start, doc_id, rest, before)


def _window(seed: int, ordinal: int, start: int, doc_id: str, ids: Sequence[int], before: Sequence[int]) -> Window:
    key = window_key(seed, ordinal, start)
    return Window(key, ordinal, start, doc_id, np.array(ids, np.int32), tuple(before))


def precomputed_windows(folder: Path, config: Corpus, seed: int, vocabulary: int) -> Iterator[Window]:
    """The rows of all files that have at least min_tokens tokens; their doc_id is `FILE:ROW`.

    Args:
        vocabulary: token ids that the tokenizer knows are below it.

    Raises:
        UserError: a row is longer than seq_len, or has a token that the tokenizer does not know.
    """
    ordinal = 0
    for file in activation_files(folder):
        for start in range(0, file.rows, ROWS):
            for row, ids in enumerate(file.token_ids(start, min(start + ROWS, file.rows)), start):
                ids = ids[: file.lengths[row]]
                if config.max_documents is not None and ordinal >= config.max_documents:
                    return
                if len(ids) >= config.min_tokens:
                    place, unknown = f"{file.path.name}:{row}", ids[(ids < 0) | (ids >= vocabulary)]
                    if len(unknown):
                        raise UserError(
                            f"{place} holds the token id {unknown[0]}, but the tokenizer of subject.model knows 0 to "
                            f"{vocabulary - 1}; name the model whose tokenizer made these ids, and leave padding out by `lengths`"
                        )
                    yield _window(seed, ordinal, 0, place, ids.tolist(), ())
                ordinal += 1


def check_precomputed_corpus(folder: Path, config: Corpus) -> None:
    """Raises UserError where the files cannot be read, or their sequences do not fit the settings."""
    longest = max(int(file.lengths.max(initial=0)) for file in activation_files(folder))
    if longest > config.seq_len:
        raise UserError(
            f"corpus.seq_len = {config.seq_len}, but {folder} holds sequences of {longest} tokens, which are taken as they are; "
            f"write seq_len = {longest}"
        )
    if config.bos == "yes":
        raise UserError(f'corpus.bos = "yes", but sequences of {config.source!r} are taken as they are; leave it out')


def sample_windows(windows: Iterable[Window], limit: int) -> list[Window]:
    """The `limit` windows with the smallest keys, by key: a uniform sample in random order; no more of them are held."""
    return heapq.nsmallest(limit, windows, key=lambda window: (window.key, window.ordinal, window.start))


def tokenize(documents: Iterable[Document], tokenizer: Any) -> Iterator[tuple[Document, list[int]]]:
    """Token ids of every document, without special tokens: text that looks like one is text.

    Offsets are not asked for: they would take several times the memory of the text.
    """
    backend = tokenizer.backend_tokenizer
    for batch in _batches(documents):
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        encoded = backend.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
        yield from ((document, one.ids) for document, one in zip(batch, encoded, strict=True))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= PIECE_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def opening_token(tokenizer: Any, bos: str) -> list[int]:
    """The token that every sequence starts with, if any; for encoders such as BERT that is [CLS].

    Args:
        bos: yes, no, or auto: as the tokenizer does by itself.

    Raises:
        UserError: bos = "yes", and the tokenizer has no such token.
    """
    token = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if bos == "no":
        return []
    if bos == "yes":
        if token is None:
            raise UserError(
                'corpus.bos = "yes", but the tokenizer has no beginning-of-sequence token; write "no" or "auto"'
            )
        return [token]
    return [token] if token is not None and tokenizer("a")["input_ids"][0] == token else []
