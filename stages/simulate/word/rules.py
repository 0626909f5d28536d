"""Rules: what an explanation says once it is read, and the values that this gives to the tokens of a text.

Shapes: T tokens, W words. Values run from 0 to 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal as OneOf

import numpy as np

from stages.english.forms import FORMS
from stages.english.text import Text, Values, is_mark, split_words
from stages.english.word_classes import Vocabulary

OTHER_CASE = 0.3
"""What a word is worth that differs from the quoted one in its capitals, where that one has any."""
CAPITALISED = 0.8
"""What a capitalised word is worth where the quoted one has no capital."""
PIECE = 0.8
"""What a token inside a word is worth where the quoted string may be either a word or a piece of one."""
REST_OF_WORD = 0.4
"""What the other tokens of a word are worth that ends with, begins with or contains the quoted string."""

FORM_FLOOR = 0.35
"""What a word of the right form is worth where its meaning does not fit at all."""

Kind = OneOf["after", "before", "inside", "first", "last"]
Scope = OneOf["word", "token", "either", "ending", "beginning", "containing"]


@dataclass(frozen=True)
class Quoted:
    """A quoted string and what it must equal."""

    text: str
    scope: Scope
    weight: float = 1.0


@dataclass(frozen=True)
class Place:
    """Where a word must stand."""

    kind: Kind
    what: str = ""
    """For inside: "parentheses", "quotation marks", ...; for first and last: "sentence", "line" or "text"."""
    triggers: tuple["Rule", ...] = ()
    """For after and before: what stands beside the word."""


@dataclass(frozen=True)
class Rule:
    """One item of an explanation: what it names, and where.

    It names every word where it has no quoted strings, no forms and no meaning.
    """

    weight: float = 1.0
    quoted: tuple[Quoted, ...] = ()
    forms: tuple[str, ...] = ()
    """Names in FORMS; all must hold."""
    meaning: str = ""
    """A phrase in plain English."""
    places: tuple[Place, ...] = ()
    """All must hold."""
    excluded: tuple["Rule", ...] = ()
    tokens: OneOf["all", "first", "last"] = "all"
    """Which tokens of each word."""
    marks: bool = False
    """Whether "every word" includes punctuation marks."""

    def meanings(self) -> list[str]:
        """All phrases in it that call for meaning."""
        inner = [*(rule for place in self.places for rule in place.triggers), *self.excluded]
        own = [self.meaning] if self.meaning else []
        return own + [phrase for rule in inner for phrase in rule.meanings()]


@dataclass(frozen=True)
class RuleReading:
    """A text that rules are applied to, and what they are applied with."""

    text: Text
    vocabulary: Vocabulary
    """Common words in lower case, by which inflections are told."""
    meaning: Callable[[str, Text], Values]
    """(W,) how well the words of a text fit a phrase."""

    def strongest(self, rules: Sequence[Rule]) -> Values:
        """(T,) the largest value that any rule gives a token."""
        values = np.zeros(len(self.text.tokens))
        for rule in rules:
            values = np.maximum(values, rule.weight * self.value(rule))
        return values

    def value(self, rule: Rule) -> Values:
        """(T,) the value of one rule, without its weight."""
        values = self._named(rule)
        for place in rule.places:
            values = values * self._standing(place)
        if rule.excluded:
            values = values * (1.0 - np.minimum(1.0, 2.0 * self.strongest(rule.excluded)))
        if rule.tokens != "all":
            chosen = [word.start if rule.tokens == "first" else word.stop - 1 for word in self.text.words]
            values = values * np.isin(np.arange(len(self.text.tokens)), chosen)
        return values

    def _named(self, rule: Rule) -> Values:
        """(T,) what the rule names, wherever it stands."""
        text = self.text
        formed = np.ones(len(text.words))
        for form in rule.forms:
            formed = formed * FORMS[form](text, self.vocabulary)
        if rule.quoted:
            return match_quoted(rule.quoted, text, self.vocabulary) * text.spread(formed)
        if rule.meaning and (rule.forms or any(place.kind != "inside" for place in rule.places)):
            return text.spread(formed * (FORM_FLOOR + (1.0 - FORM_FLOOR) * self.meaning(rule.meaning, text)))
        if rule.meaning:
            return text.spread(self.meaning(rule.meaning, text))
        return text.spread(formed if rule.forms else (text.said if rule.marks else text.lettered))

    def _standing(self, place: Place) -> Values:
        """(T,) how well tokens stand in a place."""
        text = self.text
        if place.kind == "inside":
            return text.inside(place.what).astype(np.float64)
        if place.kind in {"first", "last"}:
            return text.spread(_edges(place, text))
        tokens, beside = self.strongest(place.triggers), np.zeros(len(text.words))
        for here, there in pairwise(np.flatnonzero(text.said)):
            if place.kind == "after":
                beside[there] = tokens[text.words[here].stop - 1]
            else:
                beside[here] = tokens[text.words[there].start]
        return text.spread(beside)


def _edges(place: Place, text: Text) -> Values:
    """(W,) the first or last words of sentences, lines or the text."""
    said, edges = np.flatnonzero(text.said), np.zeros(len(text.words))
    if place.what == "text" or not len(said):
        edges[said[:1] if place.kind == "first" else said[-1:]] = 1.0
        return edges
    starts = text.sentence_starts if place.what == "sentence" else text.line_starts
    if place.kind == "first":
        return starts.astype(np.float64)
    ends = np.flatnonzero(starts)
    for end in ends[ends > 0]:
        for index in range(end - 1, -1, -1):
            if text.said[index]:
                edges[index] = 1.0
            if text.lettered[index]:
                break
    return edges


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
