"""How well words fit a phrase by meaning: sentence embeddings, and what a language model lists.

Shapes: N words, D width of the embedder, C common words, V vocabulary of the language model.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.english.text import Values
from stages.english.word_classes import COMMON, whole_words
from stages.simulate.word.listing import Listing
from stages.simulate.word.phrases import INTRODUCTIONS

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder
    from pipeline.subjects.load import LoadedModel

CUT = 1.5
"""Standard deviations above the mean of the common words where a word begins to count."""
FULL = 5.0
"""Standard deviations at which a word counts fully."""
LISTED_SHARE = 0.5
"""Weight of the list score beside the embedding's."""
MOST_WORDS = 40_000
"""Embedded words kept in memory."""
MOST_PHRASES = 512
LONGEST_PHRASE = 400
"""Characters of a phrase that are compared."""


@dataclass(frozen=True)
class _Phrase:
    """A phrase, ready to be compared with words."""

    vector: npt.NDArray[np.float32]  # (D,)
    mean: float
    deviation: float
    listed: npt.NDArray[np.float32] | None  # (V,) standardised list score of each token


class Meaning:
    """Scores words against phrases, and remembers what it has embedded."""

    def __init__(self, embedder: "Embedder", language_model: "LoadedModel | None") -> None:
        self.vocabulary = frozenset(words := whole_words(embedder.tokenizer))
        self._embedder = embedder
        self._common = words[:COMMON] or ["the", "of", "and"]
        self._common_vectors: npt.NDArray[np.float32] | None = None
        self._listing = Listing(language_model, self._common) if language_model is not None else None
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._phrases: OrderedDict[str, _Phrase] = OrderedDict()

    def values(self, phrase: str, words: Sequence[str]) -> Values:
        """(N,) from 0 to 1: how far the standardised score of each word lies above CUT, as a share of the way to FULL."""
        ready = self._phrase(phrase[:LONGEST_PHRASE])
        # Row by row, not as a matrix product, whose last bits depend on how many words there are.
        cosines = (self._embedded(words) * ready.vector).sum(axis=1)  # (N, D) -> (N,)
        scores = (cosines - ready.mean) / ready.deviation
        if self._listing is not None and ready.listed is not None:
            listed = self._listing.scores(ready.listed, words)
            scores = (1 - LISTED_SHARE) * scores + LISTED_SHARE * np.where(np.isnan(listed), scores, listed)
        return np.clip((np.asarray(scores, dtype=np.float64) - CUT) / (FULL - CUT), 0.0, 1.0)

    def _embedded(self, words: Sequence[str]) -> npt.NDArray[np.float32]:
        """(N, D) vectors of words, whatever their capitals."""
        lowered = [word.lower()[:100] for word in words]
        missing = sorted({word for word in lowered if word not in self._vectors})
        if len(self._vectors) + len(missing) > MOST_WORDS:
            self._vectors.clear()
            missing = sorted(set(lowered))
        self._vectors.update(zip(missing, self._embedder.encode(missing), strict=True))
        return (
            np.stack([self._vectors[word] for word in lowered])
            if lowered
            else np.zeros((0, self._embedder.width), np.float32)
        )

    def _phrase(self, phrase: str) -> _Phrase:
        if phrase in self._phrases:
            self._phrases.move_to_end(phrase)
            return self._phrases[phrase]
        if self._common_vectors is None:
            self._common_vectors = self._embedder.encode(self._common)
        bare = INTRODUCTIONS.sub("", phrase).strip() or phrase
        vector = self._embedder.encode([phrase, bare]).mean(axis=0)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-9)
        common = self._common_vectors @ vector  # (C,)
        listed = self._listing.read(phrase) if self._listing is not None else None
        ready = _Phrase(vector, float(common.mean()), max(float(common.std()), 1e-6), listed)
        self._phrases[phrase] = ready
        limit = MOST_PHRASES if self._listing is None else min(MOST_PHRASES, self._listing.most_phrases)
        while len(self._phrases) > limit:
            self._phrases.popitem(last=False)
        return ready
