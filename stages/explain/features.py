"""What may be said of a token (its word, piece, form, place), and the evidence about a unit as a table of tokens by features.

Shapes: T tokens of a sequence, W words of it; R tokens of the evidence that have an activation, P pairs of a token and a feature it
holds, F features, C cells of a grouping: a feature within one sequence, or within one word.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.english.forms import FORMS
from stages.english.text import Text
from stages.evidence import Evidence, TopToken
from stages.explain.explain_units import ExplanationError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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
TABLE_WEIGHT = 0.3
"""Weight of a token of the corpus-wide table beside one of an exemplar, as exemplars are like what is scored."""


class Feature(NamedTuple):
    """One thing that holds of some tokens."""

    kind: str
    text: str
    """In lower case: a word, a piece of a word, the word before, or the name of a form or a place."""


@dataclass(frozen=True)
class Grouping:
    """The pairs of each feature, grouped by what their tokens share."""

    of_pair: Ints
    """(P,) the cell of each pair."""
    feature: Ints
    """(C,) the feature of each cell."""
    count: Floats
    """(C,) tokens in each cell."""


@dataclass(frozen=True)
class Observations:
    """Tokens, their activations, and the features that each of them holds."""

    activations: Floats
    """(R,) activation units."""
    sequences: Ints
    """(R,) the exemplar of each token."""
    words: Ints
    """(R,) the word that each token belongs to, by its spelling in lower case."""
    features: list[Feature]
    """F of them."""
    rows: Ints
    """(P,) the token of each pair."""
    columns: Ints
    """(P,) the feature of each pair."""
    widths: Floats
    """(F,) tokens in a run of tokens that hold the feature: a word of three tokens is one witness, not three."""
    table_sums: Floats
    """(F,) summed activation above the mean of the tokens that only the table knows."""
    table_counts: Floats
    """(F,) how many those are."""

    @cached_property
    def counts(self) -> Floats:
        """(F,) tokens that hold each feature."""
        return summed(self.columns, np.ones(len(self.columns)), len(self.features))

    @cached_property
    def lexical(self) -> npt.NDArray[np.bool_]:
        """(F,) whether a feature is a word or a piece of one."""
        return np.array([feature.kind in LEXICAL for feature in self.features], dtype=bool)

    @cached_property
    def of_form(self) -> npt.NDArray[np.bool_]:
        """(F,) whether a feature is a form."""
        return np.array([feature.kind == FORM for feature in self.features], dtype=bool)

    @cached_property
    def groupings(self) -> tuple[Grouping, Grouping]:
        """By sequence and by word."""
        return self._grouped(self.sequences), self._grouped(self.words)

    def _grouped(self, group: Ints) -> Grouping:
        width = int(group.max()) + 1
        keys, of_pair = np.unique(self.columns * width + group[self.rows], return_inverse=True)
        return Grouping(of_pair, keys // width, np.bincount(of_pair).astype(np.float64))


def observe(evidence: Evidence) -> Observations:
    """Lay out the evidence of one unit; positions without a finite activation are left out.

    Raises:
        ExplanationError: the unit never fires in it, or never changes.
    """
    vocabulary = frozenset(
        token.strip().lower() for exemplar in evidence.exemplars for token in exemplar.tokens if token[:1].isspace()
    )
    activations: list[float] = []
    sequences, words, rows, columns = list[int](), list[int](), list[int](), list[int]()
    index: dict[Feature, int] = {}
    spellings: dict[str, int] = {}
    runs: Counter[Feature] = Counter()
    for number, exemplar in enumerate(evidence.exemplars):
        before: list[Feature] = []
        for held, activation in zip(features(exemplar.tokens, vocabulary), exemplar.activations, strict=True):
            if not np.isfinite(activation):
                before = []
                continue
            runs.update(feature for feature in held if feature not in before)
            before = held
            rows += [len(activations)] * len(held)
            columns += [index.setdefault(feature, len(index)) for feature in held]
            spelling = next((feature.text for feature in held if feature.kind == WORD), "")
            words.append(spellings.setdefault(spelling, len(spellings)))
            activations.append(float(activation))
            sequences.append(number)
    values = np.array(activations, dtype=np.float64)
    _check(values, evidence)
    sums, counts = _of_table(evidence, index, float(values.mean()))
    tokens = Counter(columns)
    widths = np.array([max(tokens[column] / max(runs[feature], 1), 1.0) for feature, column in index.items()])
    whole = [np.array(numbers, dtype=np.int64) for numbers in (sequences, words, rows, columns)]
    return Observations(values, whole[0], whole[1], list(index), whole[2], whole[3], widths, sums, counts)


def _check(values: Floats, evidence: Evidence) -> None:
    where = f"unit {evidence.index} of {evidence.module} ({evidence.polarity})"
    if not len(values):
        raise ExplanationError(f"{where} has no activation in its evidence")
    if values.max() <= 0:
        raise ExplanationError(f"{where} never fires: its largest activation in the evidence is {values.max():.3g}")
    if values.max() == values.min():
        raise ExplanationError(f"{where} is constant: every activation in the evidence is {values.max():.3g}")


def _of_table(evidence: Evidence, index: dict[Feature, int], mean: float) -> tuple[Floats, Floats]:
    """Sums and counts by feature of the tokens that only the table knows; new features join `index`."""
    seen: Counter[str] = Counter()
    mass: defaultdict[str, float] = defaultdict(float)
    for exemplar in evidence.exemplars:
        for token, activation in zip(exemplar.tokens, exemplar.activations, strict=True):
            if np.isfinite(activation):
                seen[token] += 1
                mass[token] += float(activation)
    columns, totals, numbers = list[int](), list[float](), list[int]()
    for row in evidence.top_tokens:
        feature = _feature_of(row, index)
        others = row.count - seen[row.token]
        if feature.text and others > 0 and np.isfinite(row.mean_activation):
            columns.append(index.setdefault(feature, len(index)))
            totals.append(row.mean_activation * row.count - mass[row.token] - mean * others)
            numbers.append(others)
    place, size = np.array(columns, np.int64), len(index)
    return summed(place, TABLE_WEIGHT * np.array(totals), size), summed(place, TABLE_WEIGHT * np.array(numbers), size)


def summed(bins: Ints, values: Floats, size: int) -> Floats:
    """The summed values of each bin."""
    return np.bincount(bins, values, size).astype(np.float64)


def _feature_of(row: TopToken, index: dict[Feature, int]) -> Feature:
    """The feature that a token of the table most likely is: a word if the evidence holds it as one or it begins one."""
    name = row.token.strip().lower()
    word, piece = Feature(WORD, name), Feature(PIECE, name)
    if word in index or piece not in index:
        return piece if row.token[:1].islower() and word not in index else word
    return piece


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
            found[position].append(Feature(WORD, name or ("\t" if "\t" in text.tokens[position] else " ")))
            piece = text.tokens[position].strip().lower()
            if piece.isalnum() and text.lettered[index]:
                found[position].append(Feature(PIECE, piece))


def _rules(text: Text, found: list[list[Feature]], vocabulary: frozenset[str]) -> None:
    """Add the word before, forms, common affixes and places."""
    before = ""
    for index, (word, name) in enumerate(zip(text.words, text.names, strict=True)):
        span = range(word.start, word.stop)
        if before and name:
            _add(found, span, AFTER, before)
        if text.lettered[index] and name.isalpha() and len(name) > 5:
            affixes = [f"ending in -{suffix}" for suffix in SUFFIXES if name.endswith(suffix)]
            affixes += [f"beginning with {prefix}-" for prefix in PREFIXES if name.startswith(prefix)]
            for affix in affixes:
                _add(found, span, FORM, affix)
        if text.sentence_starts[index]:
            _add(found, span, PLACE, "first word of a sentence")
        before = "" if name == "\n" else name or before
    for form in SHOWN_FORMS:
        for at in np.flatnonzero(FORMS[form](text, vocabulary) > 0.5):
            _add(found, range(text.words[at].start, text.words[at].stop), FORM, form)
    for place in ("parentheses", "quotation marks"):
        _add(found, np.flatnonzero(text.inside(place)).tolist(), PLACE, f"inside {place}")


def _add(found: list[list[Feature]], positions: Sequence[int], kind: str, text: str) -> None:
    for position in positions:
        found[position].append(Feature(kind, text))
