"""What n-grams are made of, and where they stand in texts: words and punctuation marks, or the tokens of the subject.

While n-grams are counted, each is a form: a string that says its key, its text and its length. Forms with the same key are
one n-gram, whose text is that of the commonest form.

Shapes: T tokens of a sequence, N n-grams.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.config import RunConfig
from pipeline.corpora.windows import Document
from stages.sasc import Sasc
from stages.settings import Record

if TYPE_CHECKING:
    from pipeline.subjects.vocabulary import TokenTexts

SEPARATOR = "\x1f"
"""Between the words of a form; in texts it counts as white space."""
WORD = (
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
    r"|[\p{L}\p{M}]+(?:['’\-][\p{L}\p{M}]+)*|\p{N}+(?:[.,]\p{N}+)*|[^\s]"
)
"""A letter of a script without spaces, a word (don't and well-known are one), a number (1,969.5 is one), or a single mark."""
REPLACEMENT = "\ufffd"
"""Stands for a part of a character."""


class Ngram(NamedTuple):
    """What a form says."""

    key: str
    text: str
    n: int


Spans = list[tuple[int, int]]


def word_spans(text: str) -> Spans:
    """Where the words and punctuation marks of a text start and end, in characters."""
    return [span for _, span in _splitter().pre_tokenize_str(text.replace(SEPARATOR, " "))]


@cache
def _splitter() -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return Split(Regex(WORD), "removed", invert=True)


def word_forms(text: str, sizes: Iterable[int], spans: Spans | None = None) -> Iterator[tuple[str, int, int]]:
    """The form of each n-gram of a text, and the numbers of its first word and of the one after its last.

    Args:
        spans: of the words, where they are known.
    """
    spans = word_spans(text) if spans is None else spans
    words = [text[start:stop] for start, stop in spans]
    linked = [
        word + SEPARATOR + (" " if stop < following else "")
        for word, (_, stop), (following, _) in zip(words, spans, spans[1:], strict=False)
    ]
    for n in sizes:
        for start in range(len(words) - n + 1):
            yield "".join(linked[start : start + n - 1]) + words[start + n - 1], start, start + n


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
    ids: Sequence[int], joined: Callable[[Sequence[int]], str], sizes: Iterable[int]
) -> Iterator[tuple[str, int, int]]:
    """The same of tokens. Left out is what is blank, and what is no text because it ends within a character.

    Args:
        joined: from token ids to their text.
    """
    for n in sizes:
        for start in range(len(ids) - n + 1):
            text = joined(ids[start : start + n])
            if text and not text.isspace() and REPLACEMENT not in text:
                yield f"{n}{SEPARATOR}{text}", start, start + n


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
        yield [form for form, _, stop in word_forms(text, sizes, spans) if stop > before]
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
        yield [form for form, _, stop in token_forms(everything, joined, sizes) if stop > len(tail)]
        tail = everything[-(max(sizes) - 1) :] if max(sizes) > 1 else []


class Places:
    """Where the n-grams of a list stand in sequences of the corpus."""

    def __init__(self, texts: Sequence[str], config: RunConfig, token_texts: "TokenTexts") -> None:
        """
        Args:
            texts: the N n-grams.
            token_texts: used where n-grams are made of tokens.
        """
        self._words = config[Sasc].pieces == "words"
        self._sizes = sorted(set(config[Sasc].sizes))
        self._skip, self._full = config[Record].skip_positions, config.corpus.seq_len
        self._token_texts = token_texts
        self._number = {words_key(text) if self._words else text: number for number, text in enumerate(texts)}

    @classmethod
    def of(cls, texts: Sequence[str], config: RunConfig) -> "Places":
        """Those of a run's n-grams."""
        from pipeline.subjects.loading.model_loading import load_tokenizer
        from pipeline.subjects.vocabulary import TokenTexts

        subject = config.subject
        return cls(texts, config, TokenTexts(load_tokenizer(subject.model, subject.trust_remote_code)))

    def find(self, start: int, token_ids: Sequence[int], tokens: Sequence[str]) -> list[tuple[int, int, int]]:
        """Number, first token, and the one after the last, of each n-gram of a sequence that is in the list.

        The tokens of a word are those that share a character with it. Left out are n-grams that touch the first
        record.skip_positions tokens (attention sinks), and words that the sequence begins or ends within.

        Args:
            start: offset of the sequence in its document, in tokens.
            token_ids: its T tokens.
            tokens: their texts, which joined are the text.
        """
        found = self._find_words(start, tokens) if self._words else self._find_tokens(token_ids)
        numbered = ((self._number.get(key), first, stop) for key, first, stop in found if first >= self._skip)
        return [(number, first, stop) for number, first, stop in numbered if number is not None]

    def _find_tokens(self, token_ids: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        for form, first, stop in token_forms(token_ids, self._token_texts.joined, self._sizes):
            if all(map(self._token_texts.is_text, token_ids[first:stop])):
                yield read_tokens(form).key, first, stop

    def _find_words(self, start: int, tokens: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        text = "".join(tokens)
        spans = word_spans(text)
        ends = np.cumsum([len(token) for token in tokens])
        begins = ends - [len(token) for token in tokens]
        firsts = np.searchsorted(ends, [span[0] for span in spans], side="right").tolist()
        stops = np.searchsorted(begins, [span[1] for span in spans], side="left").tolist()
        low = int(bool(spans) and start > 0 and spans[0][0] == 0)
        high = len(spans) - int(bool(spans) and len(tokens) >= self._full and spans[-1][1] == len(text))
        for form, first, stop in word_forms(text, self._sizes, spans):
            if first >= low and stop <= high:
                yield read_words(form).key, firsts[first], stops[stop - 1]
