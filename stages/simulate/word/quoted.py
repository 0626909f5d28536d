"""Matches quoted strings against the words and the tokens of a text.

Shapes: T tokens, W words.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from stages.english.text import Text, Values, is_mark, split_words
from stages.simulate.word.rules import Quoted

OTHER_CASE = 0.3
"""What a word is worth that differs from the quoted one in its capitals, where that one has any."""
CAPITALISED = 0.8
"""What a capitalised word is worth where the quoted one has no capital."""
PIECE = 0.8
"""What a token inside a word is worth where the quoted string may be either a word or a piece of one."""
REST_OF_WORD = 0.4
"""What the other tokens of a word are worth that ends with, begins with or contains the quoted string."""


def match_quoted(quoted: Sequence[Quoted], text: Text, vocabulary: frozenset[str]) -> Values:
    """(T,) how well each token matches the best of several quoted strings."""
    values = np.zeros(len(text.tokens))
    for one in quoted:
        if one.scope in {"ending", "beginning", "containing"}:
            found = _affixed(one, text)
        elif one.scope == "token" or one.text[:1] == " ":
            found = _tokens(one.text, text)
        else:
            found = _words(one.text, text)
            if one.text.lower() not in vocabulary and not is_mark(one.text):
                found = np.maximum(found, PIECE * _tokens(one.text, text))
        values = np.maximum(values, one.weight * found)
    return values


def _case(written: str, asked: str) -> float:
    """How well two strings agree that are equal but for their capitals."""
    if written == asked or not any(letter.isalpha() for letter in asked):
        return 1.0
    return OTHER_CASE if any(letter.isupper() for letter in asked) else CAPITALISED


def _tokens(asked: str, text: Text) -> Values:
    """(T,) tokens equal to a string; white space counts only where the string begins with it."""
    if not asked.strip():
        return np.array(
            [
                float(asked.strip(" ") in token and not token.strip()) if asked.strip(" ") else 0.0
                for token in text.tokens
            ]
        )
    exact = asked[:1].isspace()
    bare = asked if exact else asked.strip()
    values = np.zeros(len(text.tokens))
    for index in text.token_places.get(asked.strip().lower(), []):
        written = text.tokens[index] if exact else text.tokens[index].strip()
        if written.lower() == bare.lower():
            values[index] = _case(written, bare)
    return values


@lru_cache(maxsize=4096)
def _parts(asked: str) -> tuple[str, ...]:
    return tuple(word.text for word in split_words(list(asked)) if word.text.strip())


def _words(asked: str, text: Text) -> Values:
    """(T,) the tokens of words, or runs of words, equal to a string; a mark is found among others of its token."""
    values = np.zeros(len(text.words))
    if not asked.strip():
        return _tokens(asked, text)
    parts = _parts(asked)
    said = np.flatnonzero(text.said)
    for start in _occurrences(parts[0], text):
        at = int(np.searchsorted(said, start))
        run = said[at : at + len(parts)]
        if len(run) == len(parts) and all(
            index in _occurrences(part, text) for index, part in zip(run, parts, strict=True)
        ):
            agreement = min(_case(text.words[index].text, part) for index, part in zip(run, parts, strict=True))
            values[run] = np.maximum(values[run], agreement)
    return text.spread(values)


def _occurrences(part: str, text: Text) -> list[int]:
    """The words equal to a word in all but capitals, or the marks that hold a mark."""
    if is_mark(part):
        return [index for index, name in enumerate(text.names) if part in name and is_mark(name)]
    return text.places.get(part.lower().replace("’", "'"), [])


def _affixed(one: Quoted, text: Text) -> Values:
    """(T,) words with an affix; the tokens that hold the affix count most."""
    affix = one.text.strip().lower()
    values = np.zeros(len(text.tokens))
    if not affix:
        return values
    for index, name in enumerate(text.names):
        where = {"ending": name.rfind(affix), "beginning": name.find(affix)}.get(one.scope, name.find(affix))
        fits = {
            "ending": name.endswith(affix) and len(name) > len(affix),
            "beginning": name.startswith(affix) and len(name) > len(affix),
        }.get(one.scope, where >= 0)
        if fits:
            word = text.words[index]
            values[word.start : word.stop] = REST_OF_WORD
            offset = 0
            for place in range(word.start, word.stop):
                length = len(text.tokens[place].strip())
                if offset < where + len(affix) and offset + length > where:
                    values[place] = 1.0
                offset += length
    return values
