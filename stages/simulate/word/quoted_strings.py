"""Quoted strings: taken out of an explanation, so that the rest can be read as English, and matched with the words of a text.

Shapes: T tokens, W words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal as OneOf

import numpy as np

from stages.english.text import Text, Values, is_mark, split_words

MOST = 400
"""Marks of one kind in an explanation; further ones stay in the text."""
OTHER_CASE = 0.3
"""What a word is worth that differs from the quoted one in its capitals, where that one has any."""
CAPITALISED = 0.8
"""What a capitalised word is worth where the quoted one has no capital."""
PIECE = 0.8
"""What a token inside a word is worth where the quoted string may be either a word or a piece of one."""
REST_OF_WORD = 0.4
"""What the other tokens of a word are worth that ends with, begins with or contains the quoted string."""

QUOTED = "[\ue000-\ue7ff]"
PLACED = "[\ue800-\uefff]"
AFFIXED = "[\uf000-\uf7ff]"
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_STRAIGHT = str.maketrans("“”„‟″«»‘’‚‛`´", '"""""""\'\'\'\'``')
_QUOTE = re.compile(  # a quotation of more than 60 characters is a passage, not a word, and is read as English
    r"""'(")'|"(")"|`([^`]{1,60})`|"(?!")([^"]{1,60})"|(?<![\w'])'([^'"]{1,60}|'\w{1,2}|n't)'(?![\w'])"""
)
_ABBREVIATED = (
    (re.compile(r"\be\.? ?g\.", re.I), "such as"),
    (re.compile(r"\bi\.? ?e\.", re.I), "namely"),
    (re.compile(r"\betc\."), ""),
)
_ESCAPES = {"\\n": "\n", "\\t": "\t", "↵": "\n", "⏎": "\n"}

Scope = OneOf["word", "token", "either", "ending", "beginning", "containing"]


@dataclass(frozen=True)
class Quoted:
    """A quoted string and what it must equal."""

    text: str
    scope: Scope
    weight: float = 1.0


@dataclass(frozen=True)
class Marked:
    """A text in which each quoted string is one private-use character."""

    text: str
    strings: tuple[str, ...]

    def string(self, mark: str) -> str:
        return self.strings[ord(mark) - 0xE000]

    def plain(self, text: str) -> str:
        """Part of the text with the quoted strings back in, without quotation marks."""
        return re.sub(QUOTED, lambda match: self.string(match.group()), text)


def take_quotes(explanation: str) -> Marked:
    """The explanation with its quotation marks made straight and its quoted strings taken out."""
    strings: list[str] = []

    def replace(match: re.Match[str]) -> str:
        inner = next(group for group in match.groups() if group is not None)
        if len(strings) >= MOST or not inner:
            return inner
        strings.append(_clean(inner))
        return chr(0xE000 + len(strings) - 1)

    text = _PRIVATE.sub(" ", explanation).translate(_STRAIGHT)
    for short, meant in _ABBREVIATED:
        text = short.sub(meant, text)
    text = _QUOTE.sub(replace, text).replace('"', " ").replace("`", " ")
    return Marked(re.sub(r"\s+", " ", text).strip(), tuple(strings))


def _clean(quoted: str) -> str:
    """A quoted string without the signs that tokenizers and prompts write for white space."""
    for sign, meant in _ESCAPES.items():
        quoted = quoted.replace(sign, meant)
    quoted = quoted.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
    bare = quoted.rstrip(",.;:") if any(letter.isalnum() for letter in quoted) else quoted
    return bare if bare.strip() else quoted


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
    values = np.zeros(len(text.tokens))
    if not asked.strip():
        white = asked.strip(" ")
        return np.array([float(bool(white) and white in token and not token.strip()) for token in text.tokens])
    exact = asked[:1].isspace()
    bare = asked if exact else asked.strip()
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
    if not asked.strip():
        return _tokens(asked, text)
    values = np.zeros(len(text.words))
    parts, said = _parts(asked), np.flatnonzero(text.said)
    for start in _occurrences(parts[0], text):
        at = int(np.searchsorted(said, start))
        run = said[at : at + len(parts)]
        pairs = list(zip(run, parts, strict=False))
        if len(run) == len(parts) and all(index in _occurrences(part, text) for index, part in pairs):
            agreement = min(_case(text.words[index].text, part) for index, part in pairs)
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
    for word, name in zip(text.words, text.names, strict=True):
        where = name.rfind(affix) if one.scope == "ending" else name.find(affix)
        at_edge = {"ending": name.endswith(affix), "beginning": name.startswith(affix)}.get(one.scope)
        if affix and (where >= 0 if at_edge is None else at_edge and len(name) > len(affix)):
            values[word.start : word.stop] = REST_OF_WORD
            offset = 0
            for place in range(word.start, word.stop):
                length = len(text.tokens[place].strip())
                if offset < where + len(affix) and offset + length > where:
                    values[place] = 1.0
                offset += length
    return values
