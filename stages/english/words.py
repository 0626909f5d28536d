"""The words of a text, as ranges of its tokens.

Shapes: T tokens of a sequence, W words of it.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

# U+FFFD stands for the byte of a broken character, so it is a letter; combining marks and the Indic and Thai vowel
# signs are letters here too, which they are not to `\w`.
_MARKS = (
    "\ufffd\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e30-\u0e4e"
)
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"(?:[^\W_{_IDEOGRAPHS}]|[{_MARKS}])"
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


def split_words(tokens: Sequence[str]) -> list[Word]:
    """The words of a text; their ranges follow one another and cover each of the T tokens exactly once.

    - Tokens without white space or punctuation between them make one word: "Phil", "adel", "phia"; so do digits.
    - A punctuation mark is a word of its own, a hyphen too: "well", "-", "known" are three words. Marks that share one
      token stay together ('."'), and a mark that shares a token with letters is left out of the word's text (".get").
    - "don't" and "O'Brien" are one word; the clitics 's, 're, 've, 'll, 'd and 'm are words of their own.
    - "1,000", "3.5", "12:30", "1990s", "3rd" and "U.S." are one word; "%" is its own.
    - Each ideograph or kana is a word of its own, as those scripts put no space between words.
    - Tokens of white space alone make one word, "\\n" if they break a line and "" if not.
    - U+FFFD, the sign of a broken character, counts as a letter; an empty token belongs to the word before it.
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
    end = first = 0
    for token in tokens:
        begin, end = end, end + len(token)
        while first < len(spans) and spans[first][1] <= begin:
            first += 1
        touched = []
        for index in range(first, len(spans)):
            if spans[index][0] >= end:
                break
            touched.append(index)
        if not token:
            owners.append(owners[-1] if owners else -1)
        elif touched:
            owners.append(next((i for i in touched if _NAMING.search(text, *spans[i])), touched[0]))
        else:
            owners.append(-1 - first)
    return owners


def _bare(text: str, begin: int, end: int, spans: list[tuple[int, int]]) -> str:
    """The part of text[begin:end] from the first to the last of its letters, or of its marks if it has no letters."""
    first = bisect_right(spans, begin, key=lambda span: span[1])
    inside = [(max(begin, a), min(end, b)) for a, b in takewhile(lambda span: span[0] < end, spans[first:])]
    if not inside:
        return "\n" if "\n" in text[begin:end] or "\r" in text[begin:end] else ""
    naming = [span for span in inside if _NAMING.search(text, *span)] or inside
    return text[naming[0][0] : naming[-1][1]]
