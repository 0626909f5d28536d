"""A sequence as the word simulator sees it: tokens, words, sentences, and what stands inside what.

Shapes: T tokens, W words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stages.english.word_classes import word_set
from stages.english.words import Word, split_words

Values = npt.NDArray[np.float64]

ABBREVIATIONS = word_set(
    """
    mr mrs ms dr prof st jr sr gen col lt sgt rev hon no vs vol pp ed fig al etc inc ltd co ca
    """
)
PAIRS = {"parentheses": ("(", ")"), "brackets": ("[", "]"), "braces": ("{", "}")}
LONGEST_INSIDE = 40
"""Tokens up to which an opening mark without its partner is believed."""

_MARKS = re.compile(r"[^\w\s]+|_+")


@dataclass(frozen=True)
class Text:
    """One sequence."""

    tokens: tuple[str, ...]
    words: tuple[Word, ...]

    @classmethod
    def read(cls, tokens: Sequence[str]) -> "Text":
        return cls(tuple(tokens), tuple(split_words(tokens)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(W,) words in lower case."""
        return tuple(word.text.lower() for word in self.words)

    @cached_property
    def owners(self) -> npt.NDArray[np.int64]:
        """(T,) the word that each token belongs to."""
        return np.repeat(np.arange(len(self.words)), [word.stop - word.start for word in self.words])

    @cached_property
    def said(self) -> npt.NDArray[np.bool_]:
        """(W,) words and marks, without white space."""
        return np.array([bool(word.text.strip()) for word in self.words], dtype=bool)

    @cached_property
    def lettered(self) -> npt.NDArray[np.bool_]:
        """(W,) words with a letter or digit."""
        return np.array([not is_mark(word.text) and bool(word.text.strip()) for word in self.words], dtype=bool)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each word stands, by the word in lower case with its apostrophes straight."""
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            found.setdefault(name.replace("’", "'"), []).append(index)
        return found

    @cached_property
    def token_places(self) -> dict[str, list[int]]:
        """Where each token stands, by the token in lower case without the white space around it."""
        found: dict[str, list[int]] = {}
        for index, token in enumerate(self.tokens):
            found.setdefault(token.strip().lower(), []).append(index)
        return found

    @cached_property
    def sentence_starts(self) -> npt.NDArray[np.bool_]:
        """(W,) the first lettered word of each sentence; the window's own first word only if it has a capital."""
        starts = np.zeros(len(self.words), dtype=bool)
        expecting = True
        for index, word in enumerate(self.words):
            broken = any("\n" in token for token in self.tokens[word.start : word.stop])
            if self.lettered[index]:
                starts[index] = expecting and (index > 0 or word.text[:1].isupper())
                expecting = broken
            elif broken or (any(mark in word.text for mark in ".!?。！？") and not self.abbreviates(index)):
                expecting = True
            elif word.text[:1] in ",;:-–—":
                expecting = False
        return starts

    @cached_property
    def line_starts(self) -> npt.NDArray[np.bool_]:
        """(W,) the first word or mark after each line break, and at the start of the text."""
        starts = np.zeros(len(self.words), dtype=bool)
        expecting = True
        for index, word in enumerate(self.words):
            texts = self.tokens[word.start : word.stop]
            if self.said[index]:
                starts[index] = expecting or "\n" in texts[0].rstrip()
                expecting = "\n" in texts[-1].lstrip()
            expecting = expecting or word.text == "\n"
        return starts

    def inside(self, what: str) -> npt.NDArray[np.bool_]:
        """(T,) tokens between two marks: "parentheses", "brackets", "braces" or "quotation marks".

        A window may cut a pair in two: a lone mark is believed over at most LONGEST_INSIDE tokens.
        """
        within = np.zeros(len(self.tokens), dtype=bool)
        opened: int | None = None
        matched = 0
        for index, token in enumerate(self.tokens):
            opening, closing = _marks_of(token, what, opened is not None)
            if closing and opened is not None:
                within[opened + 1 : index] = True
                opened, matched = None, index
            elif closing and matched == 0 and index <= LONGEST_INSIDE:
                within[:index] = True
            if opening:
                opened = matched = index
        if opened is not None and len(self.tokens) - opened <= LONGEST_INSIDE:
            within[opened + 1 :] = True
        return within

    def spread(self, values: npt.ArrayLike) -> Values:
        """(W,) values of words to (T,) values of their tokens."""
        return np.asarray(values, dtype=np.float64)[self.owners]

    def abbreviates(self, index: int) -> bool:
        """Whether the full stop at this word belongs to an initial or an abbreviation before it."""
        before = self.words[index - 1].text if index else ""
        return self.words[index].text == "." and (
            before.lower() in ABBREVIATIONS or (len(before) == 1 and before.isupper())
        )


def is_mark(word: str) -> bool:
    """Whether a word is punctuation only."""
    return _MARKS.fullmatch(word) is not None


def _marks_of(token: str, what: str, inside: bool) -> tuple[bool, bool]:
    """Whether a token opens, and whether it closes, what stands between such marks."""
    if what in PAIRS:
        left, right = PAIRS[what]
        return token.rfind(left) > token.rfind(right), token.rfind(right) > token.rfind(left)
    if "“" in token or "”" in token:
        return "“" in token, "”" in token
    if '"' not in token:
        return False, False
    starts = token[:1].isspace() and not token.strip().rstrip('"')
    return (True, False) if starts or not (inside or token.strip() != '"' or starts) else (False, True)
