"""A piece of a corpus."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

PIECE_CHARACTERS = 1 << 17
"""Longer documents come in pieces of about this many characters, so that memory stays bounded."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ENDS = ("\n\n", "\n", " ")


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
        stop = _cut(text, start)
        yield Document(doc_id, text[start:stop], continues=start > 0)
        start = stop


def _cut(text: str, start: int) -> int:
    """Where the piece from `start` on ends."""
    limit = start + PIECE_CHARACTERS
    if limit >= len(text):
        return len(text)
    for end in _ENDS:
        found = text.rfind(end, start + PIECE_CHARACTERS // 2, limit)
        if found >= 0:
            return found + (0 if end == " " else len(end))
    return limit
