"""Rules of form: which words of a text are numbers, capitalised, in the past tense, and so on, by name.

Shapes: W words. A form maps a Text and a vocabulary of common English words to W values from 0 to 1.
"""

import re
from collections.abc import Callable

import numpy as np

from stages.english import word_classes
from stages.english.text import Text, Values, is_mark
from stages.english.word_classes import CLASSES, LISTS, MARKS, Vocabulary

Form = Callable[[Text, Vocabulary], Values]

_NUMERAL = re.compile(r"[+-]?\d[\d.,:]*(?:st|nd|rd|th|s)?", re.IGNORECASE)


def _each(test: Callable[[str], object]) -> Form:
    """A form that looks at each word alone, as it is written."""
    return lambda text, _: np.array([float(bool(test(word.text))) for word in text.words])


def _like(pattern: str) -> Form:
    return _each(re.compile(pattern).fullmatch)


def _member(members: frozenset[str]) -> Form:
    return lambda text, _: np.array([float(name.replace("’", "'") in members) for name in text.names])


def _known(test: Callable[[str, Vocabulary], bool]) -> Form:
    """A form that looks at each word, in lower case, and at the vocabulary."""
    return lambda text, vocabulary: np.array([float(test(name, vocabulary)) for name in text.names])


def _marked(marks: str) -> Form:
    return _each(lambda word: is_mark(word) and any(mark in word for mark in marks))


def _months(text: Text, _: Vocabulary) -> Values:
    """Months; "may" and "march" only with a capital."""
    words, doubtful = zip(text.names, text.words, strict=True), {"may", "march", "mar", "dec", "sat"}
    return np.array([float(name in CLASSES["months"] and word.text not in doubtful) for name, word in words])


def _names(text: Text, vocabulary: Vocabulary) -> Values:
    """Proper names: a capital that is not owed to the start of a sentence; half for unknown words at the start."""
    starts = text.sentence_starts
    values = np.zeros(len(text.words))
    for index, word in enumerate(text.words):
        if not word.text[:1].isupper() or word.text in {"I", "A"}:
            continue
        name = text.names[index]
        at_start = 0.0 if _common_word(name) else 0.3 if name in vocabulary else 0.8
        values[index] = at_start if starts[index] else 0.5 if _common_word(name) else 1.0
    return values


def _common_word(name: str) -> bool:
    classes = ("pronouns", "prepositions", "conjunctions", "determiners", "modal verbs")
    return any(name in CLASSES[one] for one in classes)


def _dates(text: Text, vocabulary: Vocabulary) -> Values:
    """Months, years, and the day of the month beside a month."""
    months = _months(text, vocabulary)
    values = np.maximum(months, FORMS["years"](text, vocabulary))
    for index in np.flatnonzero(months):
        for beside in (index - 1, index + 1):
            if 0 <= beside < len(values) and re.fullmatch(r"[0-3]?\d(?:st|nd|rd|th)?", text.names[beside]):
                values[beside] = 1.0
    return values


def _breaks(text: Text, _: Vocabulary) -> Values:
    return np.array([float(any("\n" in token for token in text.tokens[w.start : w.stop])) for w in text.words])


def _sentence_ends(text: Text, vocabulary: Vocabulary) -> Values:
    marked = _marked(MARKS["sentence ends"])(text, vocabulary)
    return marked * [not text.abbreviates(index) for index in range(len(text.words))]


def _hyphenated(text: Text, _: Vocabulary) -> Values:
    """Words joined by a hyphen without white space around it, and that hyphen."""
    values = np.zeros(len(text.words))
    for index in range(1, len(text.words) - 1):
        spaced = any(text.tokens[text.words[at].start][:1].isspace() for at in (index, index + 1))
        if text.words[index].text in MARKS["hyphens"] and not spaced and text.lettered[[index - 1, index + 1]].all():
            values[index - 1 : index + 2] = 1.0
    return values


def _repeated(text: Text, _: Vocabulary) -> Values:
    """Words of content that the text has had before."""
    seen: set[str] = set()
    values = np.zeros(len(text.words))
    for index, name in enumerate(text.names):
        if text.lettered[index] and not _common_word(name) and name not in CLASSES["auxiliaries"]:
            values[index] = float(name in seen)
            seen.add(name)
    return values


FORMS: dict[str, Form] = {
    **{name: _marked(marks) for name, marks in MARKS.items()},
    **{name: _member(members) for name, members in CLASSES.items()},
    "punctuation": _each(is_mark),
    "sentence ends": _sentence_ends,
    "line breaks": _breaks,
    "white space": lambda text, _: np.array([float(not word.text.strip()) for word in text.words]),
    "numbers": _each(lambda word: _NUMERAL.fullmatch(word) or word.lower() in LISTS["number words"]),
    "numerals": _each(_NUMERAL.fullmatch),
    "number words": _each(lambda word: word.lower() in LISTS["number words"]),
    "ordinals": _each(lambda w: w.lower() in CLASSES["ordinals"] or re.fullmatch(r"\d+(st|nd|rd|th)", w.lower())),
    "years": _like(r"(?:1\d|20)\d\d"),
    "decades": _like(r"(?:(?:1\d|20)?\d0)s"),
    "dates": _dates,
    "months": _months,
    "decimals": _like(r"\d+\.\d+"),
    "roman numerals": _like(r"(?=[IVXLCDM]{2})M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"),
    "capitalised": _each(lambda word: word[:1].isupper()),
    "lower case": _each(lambda word: word.islower()),
    "names": _names,
    "acronyms": _each(
        lambda word: len(letters := [c for c in word if c.isalpha()]) > 1 and all(map(str.isupper, letters))
    ),
    "initials": _each(lambda word: len(word) == 1 and word.isupper()),
    "single letters": _each(lambda word: len(word) == 1 and word.isalpha()),
    "non-English letters": _each(lambda word: any(letter.isalpha() and not letter.isascii() for letter in word)),
    "broken characters": _each(lambda word: "\ufffd" in word),
    "hyphenated": _hyphenated,
    "contractions": _each(lambda word: any(mark in word[:-1] for mark in "'’") and any(map(str.isalpha, word))),
    "repeated words": _repeated,
    "long words": _each(lambda word: len(word) >= 10),
    "short words": _each(lambda word: word.isalpha() and len(word) <= 3),
    "past tense": _known(word_classes.is_past),
    "-ing": _known(word_classes.is_ing),
    "plurals": _known(word_classes.is_plural),
    "comparatives": _known(word_classes.is_comparative),
    "superlatives": _known(word_classes.is_superlative),
    "adverbs": _known(word_classes.is_adverb),
    "verbs": _known(word_classes.is_verb),
    "nouns": _known(word_classes.is_noun),
    "adjectives": _known(word_classes.is_adjective),
    "function words": _each(lambda word: _common_word(word.lower()) or word.lower() in CLASSES["auxiliaries"]),
}
