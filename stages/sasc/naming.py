"""Which concept some n-grams share, by the meanings of words.

Shapes: N n-grams, M names of concepts, C common words, D numbers of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.explain.statistics.features import FUNCTION_WORDS
from stages.sasc.concepts import CONCEPTS
from stages.simulate.word.meaning import whole_words

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

COMMON = 1500
"""Words that likeness to a name is standardised on."""
AGREEMENT = 1.0
"""Weight of how well likeness to a name follows the responses, beside how large it is."""
FLOOR = 0.1
"""Weight of the weakest n-gram; the strongest has 1 more."""
REMEMBERED = 50_000
"""Texts whose embeddings are kept."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Named:
    """A name and how well it fits."""

    text: str
    fit: float
    """Mean likeness of the n-grams in standard deviations of common words, and how well it follows the responses."""


class Naming:
    """Finds names that fit n-grams, and words that fit a name; remembers what it has embedded."""

    def __init__(self, embedder: "Embedder") -> None:
        self._embedder = embedder
        self._names = list(CONCEPTS)
        words = whole_words(embedder.tokenizer)
        self.vocabulary = frozenset(words)
        self._common = words[:COMMON] or ["the", "of", "and"]
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        self._fixed: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None

    def names(self, drawn: Sequence[str], kept: Sequence[tuple[str, float]], more: Sequence[str] = ()) -> list[Named]:
        """All names, the best fitting one first.

        A name fits where the drawn n-grams are more like it than common words are, the stronger ones above all, and where
        the stronger ones of all kept n-grams are more like it than the weaker ones. The former says what they share, the
        latter what makes the difference.

        Args:
            more: further names.
        """
        names = [*self._names, *(name for name in more if name not in self._names)]
        texts = [text for text, _ in kept]
        likeness = self.likeness(texts, names)  # (N, M)
        strength = _strengths([response for _, response in kept])  # (N,)
        rows = [place for place, text in enumerate(texts) if text in set(drawn)]
        weights = strength[rows] + FLOOR
        fits = weights @ likeness[rows] / weights.sum() + AGREEMENT * _correlation(strength, likeness)  # (M,)
        order = np.argsort(-fits, kind="stable")
        return [Named(names[place], float(fits[place])) for place in order]

    def likeness(self, texts: Sequence[str], names: Sequence[str]) -> Values:
        """(N, M) cosines of texts and names, in standard deviations of the name's cosines with common words."""
        fixed, common = self._fixed_vectors()
        more = self._embed(names[len(fixed) :]) if list(names[: len(fixed)]) == self._names else self._embed(names)
        vectors = np.concatenate([fixed, more]) if len(more) < len(names) else more  # (M, D)
        background = common @ vectors.T  # (C, M)
        spread = np.maximum(background.std(axis=0), 1e-6)
        return np.asarray((self._embed(texts) @ vectors.T - background.mean(axis=0)) / spread, dtype=np.float64)

    def words(self, name: str, ngrams: Sequence[str]) -> list[tuple[str, float]]:
        """Content words of n-grams by how well they stand for a name: likeness, and in how many n-grams they are."""
        counts: dict[str, int] = {}
        for ngram in ngrams:
            for word in dict.fromkeys(content_words(ngram)):
                counts[word] = counts.get(word, 0) + 1
        if not counts:
            return []
        likeness = self.likeness(list(counts), [name])[:, 0]
        scored = [
            (word, float(like * np.sqrt(count)))
            for (word, count), like in zip(counts.items(), likeness, strict=True)
            if like > 1
        ]
        return sorted(scored, key=lambda one: (-one[1], one[0]))

    def _fixed_vectors(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        if self._fixed is None:
            self._fixed = self._embedder.encode(self._names), self._embedder.encode(self._common)
        return self._fixed

    def _embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(N, D) unit vectors."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if len(self._known) + len(missing) > REMEMBERED:
            self._known.clear()
            missing = list(dict.fromkeys(texts))
        self._known.update(zip(missing, self._embedder.encode(missing), strict=True))
        rows = [self._known[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self._embedder.width), np.float32)


def content_words(text: str) -> list[str]:
    """Words of a text in lower case that say what it is about."""
    words = "".join(letter if letter.isalnum() or letter in "'’-" else " " for letter in text.lower()).split()
    bare = [word.strip("'’-") for word in words]
    return [word for word in bare if len(word) > 2 and word not in FUNCTION_WORDS and not word.isdigit()]


def _strengths(responses: Sequence[float]) -> Values:
    """(N,) responses from 0, the weakest, to 1, the strongest."""
    values = np.asarray(responses, dtype=np.float64)
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > 0 else np.ones_like(values)


def _correlation(strength: Values, likeness: Values) -> Values:
    """(M,) correlations of N strengths and the columns of likeness; 0 where either does not vary."""
    first, second = strength - strength.mean(), likeness - likeness.mean(axis=0)
    scale = np.sqrt((first**2).sum() * (second**2).sum(axis=0))
    return np.where(scale > 1e-12, first @ second / np.maximum(scale, 1e-12), 0.0)
