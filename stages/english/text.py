"""A text as words: which tokens make a word, where sentences and lines begin, and what stands inside what.

Shapes: T tokens of a text, W words of it.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stages.english.word_classes import LISTS

Values = npt.NDArray[np.float64]

PAIRS = {"parentheses": ("(", ")"), "brackets": ("[", "]"), "braces": ("{", "}")}
LONGEST_INSIDE = 40
"""Tokens up to which an opening mark without its partner is believed."""

_PUNCTUATION = re.compile(r"[^\w\s]+|_+")

# U+FFFD stands for the byte of a broken character, so it is a letter; combining marks and the Indic and Thai vowel
# signs are letters here too, which they are not to `\w`.
_COMBINING = (
    "\ufffd\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e30-\u0e4e"
)
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"(?:[^\W_{_IDEOGRAPHS}]|[{_COMBINING}])"
_CLITIC = r"['’](?:s|S|re|ve|ll|d|m)"
_WORD = re.compile(
    rf"""
      (?<!\w)(?:[A-Za-z]\.){{2,}}                           # U.S., e.g.
    | {_CLITIC}(?!{_LETTER})                        # Ann's, they're: the clitic alone
    | \d+(?:[.,:]\d+)+                                      # 1,000 and 3.5 and 12:30
    | [{_IDEOGRAPHS}]
    | {_LETTER}+(?:(?!{_CLITIC}(?!{_LETTER}))['’]{_LETTER}+)*   # word, don't, O'Brien, 1990s
    | \S
    """,
    re.VERBOSE,
)
_NAMING = re.compile(rf"{_LETTER}|[{_IDEOGRAPHS}]")


@dataclass(frozen=True)
class Word:
    """A word of a text, or a punctuation mark, or white space that is a token of its own."""

    text: str
    """Without the white space around it; "\\n" for a line break, "" for other white space."""
    start: int
    """First token."""
    stop: int
    """One past the last token."""


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
        return _places(name.replace("’", "'") for name in self.names)

    @cached_property
    def token_places(self) -> dict[str, list[int]]:
        """Where each token stands, by the token in lower case without the white space around it."""
        return _places(token.strip().lower() for token in self.tokens)

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
            before.lower() in LISTS["abbreviations"] or (len(before) == 1 and before.isupper())
        )


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        found.setdefault(name, []).append(index)
    return found


def is_mark(word: str) -> bool:
    """Whether a word is punctuation only."""
    return _PUNCTUATION.fullmatch(word) is not None


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


def split_words(tokens: Sequence[str]) -> list[Word]:
    """The words of a text; their ranges follow one another and cover each of the T tokens exactly once.

    - Tokens without white space or punctuation between them make one word: "Phil", "adel", "phia"; so do digits.
    - A punctuation mark is a word of its own, a hyphen too: "well", "-", "known" are three words. Marks that share one
      token stay together ('."'), and a mark that shares a token with letters is left out of the word's text (".get").
    - "don't" and "O'Brien" are one word; the clitics 's, 're, 've, 'll, 'd and 'm are words of their own.
    - "1,000", "3.5", "12:30", "1990s", "3rd" and "U.S." are one word; "%" is its own.
    - Each ideograph or kana is a word of its own, as those scripts put no space between words.
    - Tokens of white space alone make one word, "\\n" if they break a line and "" if not.
    - U+FFFD, the sign of a broken character, counts as a letter.
    - An empty token is the beginning of a character that a later token ends, and belongs to that one's word.
    """
    text = "".join(tokens)
    spans = [match.span() for match in _WORD.finditer(text)]
    owners = _owners(tokens, text, spans)
    words: list[Word] = []
    begin = start = 0
    for stop in range(1, len(tokens) + 1):
        if stop < len(tokens) and owners[stop] == owners[start]:
            continue
        end = begin + sum(map(len, tokens[start:stop]))
        words.append(Word(_bare(text, begin, end, spans), start, stop))
        begin, start = end, stop
    return words


def _owners(tokens: Sequence[str], text: str, spans: list[tuple[int, int]]) -> list[int]:
    """(T,) the span that each token belongs to: its first that has letters, else its first; negative: white space."""
    owners: list[int] = []
    starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
    end = empty = 0
    for token in tokens:
        if not token:
            empty += 1
            continue
        begin, end = end, end + len(token)
        touched = range(bisect_right(stops, begin), bisect_left(starts, end))
        lettered = (index for index in touched if _NAMING.search(text, *spans[index]))
        owner = next(lettered, touched.start) if touched else -1 - touched.start
        owners += [owner if owners else -1] * empty + [owner]
        empty = 0
    return owners + owners[-1:] * empty if owners else [-1] * empty


def _bare(text: str, begin: int, end: int, spans: list[tuple[int, int]]) -> str:
    """The part of text[begin:end] from the first to the last of its letters, or of its marks if it has no letters."""
    first = bisect_right(spans, begin, key=lambda span: span[1])
    last = bisect_left(spans, end, key=lambda span: span[0])
    inside = [(max(begin, start), min(end, stop)) for start, stop in spans[first:last]]
    if not inside:
        return "\n" if "\n" in text[begin:end] or "\r" in text[begin:end] else ""
    naming = [span for span in inside if _NAMING.search(text, *span)] or inside
    return text[naming[0][0] : naming[-1][1]]
