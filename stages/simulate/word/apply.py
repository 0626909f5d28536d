"""Gives the tokens of a text the values that rules say.

Shapes: T tokens, W words. Values run from 0 to 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from stages.english.forms import FORMS
from stages.english.text import Text, Values
from stages.english.word_classes import Vocabulary
from stages.simulate.word.quoted import match_quoted
from stages.simulate.word.rules import Place, Rule

FORM_FLOOR = 0.35
"""What a word of the right form is worth where its meaning does not fit at all."""

Meaning = Callable[[str, Text], Values]
"""A phrase and a text to (W,) values."""


def apply_rules(rules: Sequence[Rule], text: Text, vocabulary: Vocabulary, meaning: Meaning) -> Values:
    """(T,) the largest value that any rule gives a token."""
    values = np.zeros(len(text.tokens))
    for rule in rules:
        values = np.maximum(values, rule.weight * apply_rule(rule, text, vocabulary, meaning))
    return values


def apply_rule(rule: Rule, text: Text, vocabulary: Vocabulary, meaning: Meaning) -> Values:
    """(T,) the value of one rule, without its weight."""
    values = _named(rule, text, vocabulary, meaning)
    for place in rule.places:
        values = values * _standing(place, text, vocabulary, meaning)
    if rule.excluded:
        values = values * (1.0 - np.minimum(1.0, 2.0 * apply_rules(rule.excluded, text, vocabulary, meaning)))
    if rule.tokens != "all":
        chosen = [word.start if rule.tokens == "first" else word.stop - 1 for word in text.words]
        values = values * np.isin(np.arange(len(text.tokens)), chosen)
    return values


def _named(rule: Rule, text: Text, vocabulary: Vocabulary, meaning: Meaning) -> Values:
    """(T,) what the rule names, wherever it stands."""
    formed = np.ones(len(text.words))
    for form in rule.forms:
        formed = formed * FORMS[form](text, vocabulary)
    if rule.quoted:
        return match_quoted(rule.quoted, text, vocabulary) * text.spread(formed)
    if rule.meaning and (rule.forms or any(place.kind != "inside" for place in rule.places)):
        return text.spread(formed * (FORM_FLOOR + (1.0 - FORM_FLOOR) * meaning(rule.meaning, text)))
    if rule.meaning:
        return text.spread(meaning(rule.meaning, text))
    return text.spread(formed if rule.forms else (text.said if rule.marks else text.lettered))


def _standing(place: Place, text: Text, vocabulary: Vocabulary, meaning: Meaning) -> Values:
    """(T,) how well tokens stand in a place."""
    if place.kind == "inside":
        return text.inside(place.what).astype(np.float64)
    if place.kind in {"first", "last"}:
        return text.spread(_edges(place, text))
    tokens = apply_rules(place.triggers, text, vocabulary, meaning)
    beside = np.zeros(len(text.words))
    said = np.flatnonzero(text.said)
    for here, there in pairwise(said):
        if place.kind == "after":
            word = text.words[here]
            beside[there] = tokens[word.stop - 1]
        else:
            word = text.words[there]
            beside[here] = tokens[word.start]
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
