"""What the form of n-grams has in common: numbers, question marks, tenses, capitals."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.english.forms import FORMS
from stages.english.text import Text

MOST_SHARE = 0.7
"""Share of the n-grams that have to have a form before it is named."""
TIMES = 3.0
"""How many times as large that share has to be as in running text."""
LEAST = 5
"""N-grams without which no form is named."""
RANK = 2.7
"""What Zipf's law adds to the rank of a word (Mandelbrot 1953)."""
NAMED = 2
"""Forms named at most."""

Shares = npt.NDArray[np.float64]


class SharedForms:
    """Finds forms that n-grams share, of all those that the word simulator knows, by its names for them."""

    def __init__(self, common: Sequence[str], vocabulary: frozenset[str]) -> None:
        """
        Args:
            common: common words, the commonest first: how usual a form is in running text is told by them and Zipf's law.
            vocabulary: English words in lower case, by which inflections are told.
        """
        self._vocabulary = vocabulary
        known = common or ["the"]
        self._usual = np.average(self._have(known), axis=0, weights=1 / (np.arange(len(known)) + RANK))  # (forms,)

    def of(self, ngrams: Sequence[str]) -> list[str]:
        """Forms that at least MOST_SHARE of the n-grams have, and TIMES as many as in running text; the least expected one first."""
        if len(ngrams) < LEAST:
            return []
        share = self._have(ngrams).mean(axis=0)
        words = np.asarray([len(ngram.split()) for ngram in ngrams])
        expected = (1 - (1 - self._usual) ** words[:, None]).mean(axis=0)
        order = np.argsort(expected - share, kind="stable")[:NAMED]
        names = list(FORMS)
        return [names[place] for place in order if share[place] >= max(MOST_SHARE, TIMES * expected[place])]

    def _have(self, ngrams: Sequence[str]) -> Shares:
        """(N, forms) 1 where a word of an n-gram has the form, else 0."""
        texts = [Text.read(_tokens(ngram)) for ngram in ngrams]
        found = [[(form(text, self._vocabulary) > 0.5).any() for form in FORMS.values()] for text in texts]
        return np.asarray(found, dtype=np.float64)


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
