"""What may be said of a token: the word it belongs to, its piece of the word, the word before, form and place.

Shapes: T tokens of a sequence, W words of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stages.english.forms import FORMS
from stages.english.text import Text

WORD, PIECE, AFTER, FORM, PLACE = "word", "piece", "after", "form", "place"
LEXICAL = (WORD, PIECE)
RULES = (AFTER, FORM, PLACE)
SHOWN_FORMS = (
    "numerals", "years", "decades", "decimals", "ordinals", "months", "days", "dates", "roman numerals", "number words",
    "names", "capitalised", "acronyms", "initials", "non-English letters", "punctuation", "symbols", "function words",
    "articles", "pronouns", "possessives", "prepositions", "conjunctions", "question words", "modal verbs", "auxiliaries",
    "negation", "past tense", "-ing", "plurals", "comparatives", "superlatives", "adverbs", "units", "long words",
)  # fmt: skip
"""Forms that an explanation may name, a subset of those that the word simulator knows."""
SUFFIXES = ("al", "ic", "er", "ist", "ism", "ity", "ion", "ment", "ness", "ous", "able", "ive", "ian", "ship", "logy")
PREFIXES = ("un", "re", "pre", "non", "anti", "inter", "trans", "sub", "over", "dis", "mis", "micro", "pro", "counter")
"""Affixes that an explanation may name of whole words, beside the pieces that a tokenizer cuts."""


@dataclass(frozen=True, order=True)
class Feature:
    """One thing that holds of some tokens."""

    kind: str
    text: str
    """In lower case: a word, a piece of a word, the word before, or the name of a form or a place."""


def features(tokens: Sequence[str], vocabulary: frozenset[str]) -> list[list[Feature]]:
    """(T,) what holds of each token; `vocabulary` are words in lower case by which inflections are told."""
    text = Text.read(tokens)
    found: list[list[Feature]] = [[] for _ in tokens]
    _lexical(text, found)
    _rules(text, found, vocabulary)
    return found


def _lexical(text: Text, found: list[list[Feature]]) -> None:
    """Add the words and the tokens that they are made of; a word of one token holds two features that say the same."""
    for index, (word, name) in enumerate(zip(text.words, text.names, strict=True)):
        for position in range(word.start, word.stop):
            found[position].append(_feature(WORD, name or ("\t" if "\t" in text.tokens[position] else " ")))
            piece = text.tokens[position].strip().lower()
            if piece.isalnum() and text.lettered[index]:
                found[position].append(_feature(PIECE, piece))


def _rules(text: Text, found: list[list[Feature]], vocabulary: frozenset[str]) -> None:
    """Add the word before, forms, common affixes and places."""
    before = ""
    for index, (word, name) in enumerate(zip(text.words, text.names, strict=True)):
        span = range(word.start, word.stop)
        if before and name:
            _add(found, span, AFTER, before)
        if text.lettered[index] and name.isalpha() and len(name) > 5:
            for suffix in SUFFIXES:
                if name.endswith(suffix):
                    _add(found, span, FORM, f"ending in -{suffix}")
            for prefix in PREFIXES:
                if name.startswith(prefix):
                    _add(found, span, FORM, f"beginning with {prefix}-")
        if text.sentence_starts[index]:
            _add(found, span, PLACE, "first word of a sentence")
        before = "" if name == "\n" else name or before
    for form in SHOWN_FORMS:
        for at in np.flatnonzero(FORMS[form](text, vocabulary) > 0.5):
            _add(found, range(text.words[at].start, text.words[at].stop), FORM, form)
    for place in ("parentheses", "quotation marks"):
        _add(found, np.flatnonzero(text.inside(place)).tolist(), PLACE, f"inside {place}")


def _add(found: list[list[Feature]], positions: Sequence[int], kind: str, text: str) -> None:
    feature = _feature(kind, text)
    for position in positions:
        found[position].append(feature)


@lru_cache(maxsize=2**16)
def _feature(kind: str, text: str) -> Feature:
    return Feature(kind, text)
