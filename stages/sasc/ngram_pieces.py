"""What n-grams are made of: words and punctuation marks, or the tokens of the subject.

While n-grams are counted, each is a form: a string that says its key, its text and its length. Forms with the same key are
one n-gram, whose text is that of the commonest form.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.corpora.windows import Document

SEPARATOR = "\x1f"
"""Between the words of a form; in texts it counts as white space."""
WORD = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
    r"|[\p{L}\p{M}]+(?:['’\-][\p{L}\p{M}]+)*|\p{N}+(?:[.,]\p{N}+)*|[^\s]"
)
"""A letter of a script without spaces, a word (don't and well-known are one), a number (1,969.5 is one), or a single mark."""
REPLACEMENT = "\ufffd"
"""Stands for a part of a character."""


@dataclass(frozen=True)
class Ngram:
    """What a form says."""

    key: str
    text: str
    n: int


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words and punctuation marks of a text start and end, in characters."""
    return [span for _, span in _splitter().pre_tokenize_str(text.replace(SEPARATOR, " "))]


@cache
def _splitter() -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return Split(Regex(WORD), "removed", invert=True)


def word_forms(
    text: str, sizes: Iterable[int], first: int = 0, spans: Sequence[tuple[int, int]] | None = None
) -> list[tuple[str, int, int]]:
    """The form of each n-gram of a text, and the numbers of its first word and of the one after its last.

    Args:
        first: n-grams that end before this word are left out.
        spans: of the words, where they are known.
    """
    spans = word_spans(text) if spans is None else spans
    words = [text[start:stop] for start, stop in spans]
    linked = [
        word + SEPARATOR + (" " if stop < following else "")
        for word, (_, stop), (following, _) in zip(words, spans, spans[1:], strict=False)
    ]
    return [
        ("".join(linked[start : start + n - 1]) + words[start + n - 1], start, start + n)
        for n in sizes
        for start in range(max(0, first - n + 1), len(words) - n + 1)
    ]


def read_words(form: str) -> Ngram:
    """Case and white space make no difference between n-grams of words; a text shows any white space as one space."""
    return Ngram(form.replace(" ", "").casefold(), form.replace(SEPARATOR, ""), form.count(SEPARATOR) + 1)


def words_key(text: str) -> str:
    """The key of an n-gram of words, from its text."""
    return SEPARATOR.join(text[start:stop] for start, stop in word_spans(text)).casefold()


def normalised_text(text: str) -> str:
    """What two texts have in common that say the same: letters and digits without capitals."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split()
    return " ".join(words) or text.strip()


def token_forms(
    ids: Sequence[int], joined: Callable[[Sequence[int]], str], sizes: Iterable[int], first: int = 0
) -> list[tuple[str, int, int]]:
    """The same of tokens. Left out is what is blank, and what is no text because it ends within a character.

    Args:
        joined: from token ids to their text.
    """
    found = [
        (joined(ids[start : start + n]), start, start + n)
        for n in sizes
        for start in range(max(0, first - n + 1), len(ids) - n + 1)
    ]
    return [
        (f"{stop - start}{SEPARATOR}{text}", start, stop)
        for text, start, stop in found
        if text and not text.isspace() and REPLACEMENT not in text
    ]


def read_tokens(form: str) -> Ngram:
    """N-grams of tokens are the same where their texts are the same to the letter; n is that of the commonest division."""
    n, _, text = form.partition(SEPARATOR)
    return Ngram(text, text, int(n))


def forms_of_words(documents: Iterable[Document], sizes: Sequence[int]) -> Iterator[list[str]]:
    """The forms in one document, or piece of a long one, after another."""
    tail = ""
    for document in documents:
        tail = tail if document.continues else ""
        text = tail + document.text
        spans = word_spans(text)
        before = bisect_left(spans, (len(tail), 0))
        yield [form for form, *_ in word_forms(text, sizes, before, spans)]
        last = spans[-(max(sizes) - 1) :] if max(sizes) > 1 else []
        tail = text[last[0][0] :] if last else ""


def forms_of_tokens(
    documents: Iterable[tuple[Document, Sequence[int]]], joined: Callable[[Sequence[int]], str], sizes: Sequence[int]
) -> Iterator[list[str]]:
    """The same of tokens."""
    tail: list[int] = []
    for document, ids in documents:
        tail = tail if document.continues else []
        everything = [*tail, *ids]
        yield [form for form, *_ in token_forms(everything, joined, sizes, len(tail))]
        tail = everything[-(max(sizes) - 1) :] if max(sizes) > 1 else []
