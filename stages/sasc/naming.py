"""Which words say what some n-grams share, by meaning.

Nobody wrote a list of topics: any common word of the embedder's own vocabulary may be a name.

Shapes: N n-grams, M names, D numbers of an embedding.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.english.word_classes import COMMON, FUNCTION_WORDS, content_words, stems, whole_words
from stages.sasc.explain_ngrams import Kept

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder

VOCABULARY = 12_000
"""Words that may be names, the commonest ones of the vocabulary."""
AGREEMENT = 0.5
"""Weight of how well likeness to a name follows the responses, beside how like it the strong n-grams are."""
FLOOR = 0.1
"""Weight of the weakest n-gram; the strongest has 1 more."""
ALIKE = 0.7
"""Cosine from which two words say the same."""
REMEMBERED = 50_000
"""Texts whose embeddings are kept, about."""
UNLIKE = 0.2
"""Cosine of the middles of two clusters below which they are two themes. On the tuning half of the recovery benchmark one concept's
n-grams have 0.25 to 0.78, those of two concepts -0.07 to 0.25."""
SMALLEST = 0.2
"""Share of the weight that a theme has at least."""
TRIES = 5
"""Starts of the clustering, each an n-gram and the one least like it; the best is taken."""
UNITS = 16
"""Units whose agreement with all words of the vocabulary is kept; it is worked out once for all draws of a unit."""

Values = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]


Fits = dict[str, float]
"""By word, the best first, how well it fits: cosine with the middle of the n-grams, and AGREEMENT times a correlation; at most 1.5."""


class Naming:
    """Finds words that fit n-grams; remembers what it has embedded.

    Vectors are those of the embedder less their mean over common words, so that a cosine of 0 is that of unrelated words.
    """

    def __init__(self, embedder: "Embedder") -> None:
        words = whole_words(embedder.tokenizer)
        self.vocabulary = frozenset(words)
        self.common = words[:COMMON]
        self._embedder = embedder
        self._words = [word for word in words[:VOCABULARY] if _says_something(word)]
        common = self.common or ["the"]
        vectors = embedder.cached([*common, *self._words])
        self._mean = vectors[: len(common)].mean(axis=0)  # (D,)
        self._word_vectors = _centred(vectors[len(common) :], self._mean)  # (M, D)
        self._given = dict(zip(self._words, vectors[len(common) :], strict=True))
        self._known = dict(self._given)
        self._follow_words = lru_cache(maxsize=UNITS)(lambda kept: self._follow(kept, self._word_vectors))

    def names(self, drawn: Sequence[str], kept: Kept, more: Sequence[str] = ()) -> Fits:
        """All names.

        A name fits where the drawn n-grams, the stronger ones above all, are like it on average, and where the
        stronger ones of all kept n-grams are more like it than the weaker ones. The former says what they share, the
        latter what makes the difference.

        Args:
            more: further names.
        """
        told = self._embed(more)
        vectors = np.concatenate([self._word_vectors, told])
        followed = np.concatenate([self._follow_words(tuple(kept)), self._follow(kept, told)])
        return _ranked([*self._words, *more], vectors @ self._middle(drawn, kept) + AGREEMENT * followed)

    def words(self, drawn: Sequence[str], kept: Kept) -> Fits:
        """Content words of the drawn n-grams by how well they stand for what these share, and in how many they are."""
        counts = Counter(word for ngram in drawn for word in dict.fromkeys(content_words(ngram)))
        vectors = self._embed(list(counts))
        fits = vectors @ self._middle(drawn, kept) + AGREEMENT * self._follow(kept, vectors)
        return _ranked(list(counts), fits * np.sqrt(list(counts.values())))

    def clusters(self, drawn: Sequence[str], kept: Kept) -> list[list[str]]:
        """The drawn n-grams by their themes, the stronger theme first: two of them if they fall into two clusters of unlike meaning
        (k-means of unit vectors), otherwise one."""
        weights = _weights(drawn, kept)
        sides = _two_sides(self._embed(drawn), weights)
        shares = [weights[side].sum() / weights.sum() for side in sides]
        if min(shares) < SMALLEST:
            return [list(drawn)]
        order = np.argsort([-share for share in shares], kind="stable")
        return [[text for text, inside in zip(drawn, sides[side], strict=True) if inside] for side in order]

    def apart(self, names: Iterable[str], count: int, taken: Sequence[str] = ()) -> list[str]:
        """The first `count` names that say different things, and others than those taken."""
        found, vectors = list(taken), list(self._embed(taken))
        for name in names:
            vector = self._embed([name])[0]
            if len(found) == len(taken) + count:
                break
            if name not in found and all(float(vector @ other) < ALIKE for other in vectors):
                found.append(name)
                vectors.append(vector)
        return found[len(taken) :]

    def overlap(self, names: Sequence[str], others: Sequence[str]) -> bool:
        """Whether one of the names says what one of the others does: it is ALIKE, or not UNLIKE and an inflection of the same word."""
        cosines = self._embed(names) @ self._embed(others).T
        needed = [[UNLIKE if {*stems(name)} & {*stems(other)} else ALIKE for other in others] for name in names]
        return bool((cosines >= np.asarray(needed)).any())

    def _middle(self, drawn: Sequence[str], kept: Kept) -> Vectors:
        """(D,) where the drawn n-grams are on average, at length 1."""
        weights = _weights(drawn, kept)
        middle = weights @ self._plain(drawn) / weights.sum() - self._mean
        return np.asarray(middle / max(float(np.linalg.norm(middle)), 1e-9), np.float32)

    def _follow(self, kept: Kept, names: Vectors) -> Values:
        """(M,) correlations over the kept n-grams of their strength and their likeness to each of names (M, D)."""
        likeness = (self._plain([text for text, _ in kept]) @ names.T).astype(np.float64)  # (N, M)
        first, second = _strengths(kept), likeness - likeness.mean(axis=0)
        first = first - first.mean()
        scale = np.sqrt((first**2).sum() * (second**2).sum(axis=0))
        return np.where(scale > 1e-9, first @ second / np.maximum(scale, 1e-9), 0.0)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        """(N, D) less the mean of the common words, at length 1."""
        return _centred(self._plain(texts), self._mean)

    def _plain(self, texts: Sequence[str]) -> Vectors:
        """(N, D) as the embedder gives them."""
        if len(self._known) > REMEMBERED:
            self._known = dict(self._given)
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(missing, self._embedder.encode(missing), strict=True))
        rows = [self._known[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self._embedder.width), np.float32)


def _says_something(word: str) -> bool:
    """Whether a word of a vocabulary is one of content, and no half of a contraction, such as `wasn`."""
    return content_words(word) == [word] and f"{word}'t" not in FUNCTION_WORDS


def _strengths(kept: Kept) -> Values:
    """(N,) responses from 0, the weakest, to 1, the strongest."""
    values = np.asarray([response for _, response in kept], dtype=np.float64)
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread > 0 else np.ones_like(values)


def _weights(drawn: Sequence[str], kept: Kept) -> npt.NDArray[np.float32]:
    """(N,) weights of the drawn n-grams by their strength."""
    strength = {text: value for (text, _), value in zip(kept, _strengths(kept), strict=True)}
    return np.asarray([strength[text] + FLOOR for text in drawn], np.float32)


def _two_sides(
    vectors: Vectors, weights: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which of (N, D) vectors are on either side of the best split into two clusters; none on the second if these are alike."""
    from scipy.cluster.vq import kmeans2

    best, found = -np.inf, (np.ones(len(vectors), bool), np.zeros(len(vectors), bool))
    everything = found
    for start in vectors[:TRIES]:
        ends = np.stack([start, vectors[np.argmin(vectors @ start)]])
        if np.array_equal(*ends):  # all are alike
            break
        labels = kmeans2(vectors, ends, minit="matrix")[1]
        sides = labels == 0, labels == 1
        sums = [weights[side] @ vectors[side] for side in sides]
        lengths = [float(np.linalg.norm(one)) for one in sums]
        if sum(lengths) > best and min(lengths) > 0:
            best, cosine = sum(lengths), float(sums[0] @ sums[1]) / (lengths[0] * lengths[1])
            found = sides if cosine < UNLIKE else everything
    return found


def _centred(vectors: Vectors, mean: Vectors) -> Vectors:
    moved = vectors - mean
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9), np.float32)


def _ranked(names: Sequence[str], fits: npt.NDArray[np.floating]) -> Fits:
    return {names[place]: float(fits[place]) for place in np.argsort(-fits, kind="stable")}
