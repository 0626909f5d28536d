"""Rules: what an explanation says once it is read, and the values that this gives to the tokens of a text.

Shapes: T tokens, W words. Values run from 0 to 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal as OneOf

import numpy as np

from stages.english.forms import FORMS
from stages.english.text import Text, Values
from stages.english.word_classes import Vocabulary
from stages.simulate.word.quoted_strings import Quoted, match_quoted

Kind = OneOf["after", "before", "inside", "first", "last"]
FORM_FLOOR = 0.35
"""What a word of the right form is worth where its meaning does not fit at all."""


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
        tokens = self.strongest(place.triggers)
        beside = np.zeros(len(text.words))
        for here, there in pairwise(np.flatnonzero(text.said)):
            if place.kind == "after":
                beside[there] = tokens[text.words[here].stop - 1]
            else:
                beside[here] = tokens[text.words[there].start]
        return text.spread(beside)


def _edges(place: Place, text: Text) -> Values:
    """(W,) the first or last words of sentences, lines or the text."""
    said = np.flatnonzero(text.said)
    edges = np.zeros(len(text.words))
    if not len(said):
        return edges
    if place.what == "text":
        edges[said[0] if place.kind == "first" else said[-1]] = 1.0
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
