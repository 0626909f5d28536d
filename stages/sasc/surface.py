"""What the form of n-grams has in common: numbers, question marks, tenses, capitals."""

from collections.abc import Sequence

from stages.simulate.word.forms import FORMS
from stages.simulate.word.text import Text

MOST_SHARE = 0.7
"""Share of the n-grams that have to have a form before it is named."""
LEAST = 5
"""N-grams without which no form is named."""
SHOWN = {
    "years": "years",
    "decimals": "decimal numbers",
    "months": "months",
    "number words": "numbers written as words",
    "numerals": "numerals",
    "ordinals": "ordinal numbers",
    "question marks": "question marks",
    "exclamation marks": "exclamation marks",
    "quotation marks": "quotation marks",
    "parentheses": "parentheses",
    "currency signs": "signs of currencies",
    "percent signs": "percent signs",
    "commas": "commas",
    "full stops": "full stops",
    "colons": "colons",
    "hyphenated": "hyphenated words",
    "acronyms": "words all in capitals",
    "non-English letters": "letters that English does not have",
    "contractions": "contractions",
    "question words": "question words",
    "negation": "negation",
    "modal verbs": "modal verbs",
    "comparatives": "comparatives",
    "superlatives": "superlatives",
    "past tense": "verbs in the past tense",
    "-ing": "words ending in -ing",
    "names": "proper names",
    "capitalised": "words with a capital",
    "prepositions": "prepositions",
    "conjunctions": "conjunctions",
    "articles": "articles",
}
"""Forms that may be named, and the words for them; where several hold, the first two are."""
PERSONS = {
    "the first person (I, we)": frozenset(
        [
            "i",
            "me",
            "my",
            "mine",
            "myself",
            "we",
            "us",
            "our",
            "ours",
            "ourselves",
            "i'm",
            "i've",
            "i'll",
            "i'd",
            "we're",
        ]
    ),
    "the second person (you)": frozenset(["you", "your", "yours", "yourself", "you're", "you've", "you'll"]),
    "she and her": frozenset(("she", "her", "hers", "herself")),
    "he and his": frozenset(("he", "him", "his", "himself")),
}


def shared_forms(ngrams: Sequence[str], vocabulary: frozenset[str]) -> list[str]:
    """Forms that at least MOST_SHARE of the n-grams have, in words, two at most.

    Args:
        vocabulary: English words in lower case, by which inflections are told.
    """
    if len(ngrams) < LEAST:
        return []
    found = [_forms(ngram, vocabulary) for ngram in ngrams]
    named = [*PERSONS, *SHOWN.values()]
    return [form for form in named if sum(form in one for one in found) >= MOST_SHARE * len(ngrams)][:2]


def _forms(ngram: str, vocabulary: frozenset[str]) -> set[str]:
    text = Text.read(_tokens(ngram))
    found = {phrase for form, phrase in SHOWN.items() if (FORMS[form](text, vocabulary) > 0.5).any()}
    words = {word.strip(".,!?\"'’").lower().replace("’", "'") for word in ngram.split()}
    return found | {phrase for phrase, members in PERSONS.items() if words & members}


def _tokens(ngram: str) -> list[str]:
    """The n-gram in pieces that begin with white space where a word does."""
    pieces: list[str] = []
    for number, word in enumerate(ngram.split()):
        start = 0
        for place, letter in enumerate(word):
            mark = not letter.isalnum() and letter not in "'’"
            if mark:
                pieces += [part for part in (word[start:place], letter) if part]
                start = place + 1
        pieces += [word[start:]] if word[start:] else []
        if number and pieces:
            first = len(pieces) - _count(word)
            pieces[first] = " " + pieces[first]
    return pieces


def _count(word: str) -> int:
    """Pieces that a word makes."""
    marks = [place for place, letter in enumerate(word) if not letter.isalnum() and letter not in "'’"]
    return len(marks) + sum(b - a > 1 for a, b in zip([-1, *marks], [*marks, len(word)], strict=True))
