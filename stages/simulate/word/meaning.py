"""How well words fit a phrase by meaning: by sentence embeddings, and by what a language model names when asked for a list.

Shapes: N words, D width of the embedder, C common words, V vocabulary of the language model.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.prompts import Prompt
from stages.english.text import Values
from stages.english.word_classes import COMMON, whole_words
from stages.simulate.word.reader import INTRODUCTIONS

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder
    from pipeline.subjects.loading.model_loading import LoadedModel

Floats = npt.NDArray[np.float32]

CUT = 1.5
"""Standard deviations above the mean of the common words where a word begins to count."""
FULL = 5.0
"""Standard deviations at which a word counts fully."""
LISTED_SHARE = 0.5
"""Weight of the list score beside the embedding's."""
MOST_WORDS = 40_000
"""Words whose embeddings and first tokens are kept in memory."""
MOST_PHRASES = 512
"""Phrases kept in memory."""
LONGEST_PHRASE = 400
"""Characters of a phrase that are compared."""

ANCHOR = "1."
"""End of the prompt, after which a word is tokenized as it would be there."""
UNRELATED = (
    "things", "words", "kinds of furniture", "adjectives", "common verbs", "abstract ideas", "tools", "shapes", "plants",
    "places", "people", "numbers", "events", "computer terms",
)  # fmt: skip
"""Categories against which a word's probability is held; a word likely in any list says nothing."""
LONGEST_LISTED = 240
"""Characters of a phrase that are put into the prompt."""
PHRASE_BYTES = 64 * 2**20
"""Memory for what the language model says of phrases."""


@dataclass(frozen=True)
class _Phrase:
    """A phrase, ready to be compared with words."""

    vector: Floats  # (D,)
    mean: float
    deviation: float
    listed: Floats | None  # (V,) standardised list score of each token


class Meaning:
    """Scores words against phrases, and remembers what it has embedded."""

    def __init__(self, embedder: "Embedder", lister: "tuple[LoadedModel, Prompt] | None" = None) -> None:
        """lister: a language model that lists what a phrase calls up, and the prompt that it is asked by."""
        self.vocabulary = frozenset(words := whole_words(embedder.tokenizer))
        self._embedder = embedder
        self._common = words[:COMMON] or ["the", "of", "and"]
        self._common_vectors: Floats | None = None
        self._listing = Listing(*lister, self._common) if lister is not None else None
        self._vectors: dict[str, Floats] = {}
        self._phrase = lru_cache(self._listing.most_phrases if self._listing else MOST_PHRASES)(self._read_phrase)

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

    def _embedded(self, words: Sequence[str]) -> Floats:
        """(N, D) vectors of words, whatever their capitals."""
        lowered = [word.lower()[:100] for word in words]
        missing = sorted({word for word in lowered if word not in self._vectors})
        if len(self._vectors) + len(missing) > MOST_WORDS:
            self._vectors.clear()
            missing = sorted(set(lowered))
        self._vectors.update(zip(missing, self._embedder.encode(missing), strict=True))
        return np.array([self._vectors[word] for word in lowered]).reshape(len(lowered), self._embedder.width)

    def _read_phrase(self, phrase: str) -> _Phrase:
        if self._common_vectors is None:
            self._common_vectors = self._embedder.encode(self._common)
        bare = INTRODUCTIONS.sub("", phrase).strip() or phrase
        vector = self._embedder.encode([phrase, bare]).mean(axis=0)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-9)
        common = self._common_vectors @ vector  # (C,)
        listed = self._listing.read(phrase) if self._listing is not None else None
        return _Phrase(vector, float(common.mean()), max(float(common.std()), 1e-6), listed)


class Listing:
    """One forward pass for each phrase gives a score for every word at once, by the word's first token."""

    def __init__(self, language_model: "LoadedModel", prompt: Prompt, common: Sequence[str]) -> None:
        self._subject, self._prompt = language_model, prompt
        self._common = list(common)
        self._tokens: dict[str, int] = {}
        self._unrelated: Floats | None = None
        self._anchor = self._ids([ANCHOR])[0]
        self.most_phrases = min(MOST_PHRASES, max(16, PHRASE_BYTES // (4 * len(language_model.tokenizer))))
        """Results of `read` that fit into PHRASE_BYTES."""

    def read(self, phrase: str) -> Floats:
        """(V,) log P(token | list of the phrase) - mean log P(token | list of something unrelated), standardised.

        Mean and deviation are those of the common words' first tokens.
        """
        if self._unrelated is None:
            self._unrelated = np.mean([self._log_probabilities(name) for name in UNRELATED], axis=0, dtype=np.float32)
        gain = self._log_probabilities(phrase) - self._unrelated
        firsts = self._firsts(self._common)
        common = gain[firsts[firsts >= 0]]
        if not len(common):
            return np.zeros_like(gain)
        return (gain - common.mean()) / max(float(common.std()), 1e-6)

    def scores(self, listed: Floats, words: Sequence[str]) -> Floats:
        """(N,) the score of each word, as it is written or in lower case, whichever is larger; NaN for no token."""
        written, lowered = self._firsts(words), self._firsts([word.lower() for word in words])
        best = np.maximum(listed[written], listed[lowered])
        return np.where((written >= 0) & (lowered >= 0), best, np.float32(np.nan))

    def _log_probabilities(self, phrase: str) -> Floats:
        """(V,) of the token after the prompt; phrases are run one by one, so that none depends on its neighbours."""
        import torch

        model = self._subject.model
        prompt = self._prompt.render(explanation=phrase[:LONGEST_LISTED])
        ids = torch.tensor([self._ids([prompt], special=True)[0]], device=self._subject.device)
        options = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False, **options).logits[0, -1].float()
            result: Floats = torch.log_softmax(logits, dim=-1).cpu().numpy()
        return result

    def _firsts(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) the first token of each word after the prompt; -1 where the tokenizer joins it with what stands before."""
        missing = sorted({word for word in words if word not in self._tokens})
        if len(self._tokens) + len(missing) > MOST_WORDS:
            self._tokens.clear()
            missing = sorted(set(words))
        if missing:
            size = len(self._anchor)
            for word, ids in zip(missing, self._ids([f"{ANCHOR} {word[:100]}" for word in missing]), strict=True):
                self._tokens[word] = ids[size] if ids[:size] == self._anchor and len(ids) > size else -1
        return np.array([self._tokens[word] for word in words], dtype=np.int64)

    def _ids(self, texts: list[str], special: bool = False) -> list[list[int]]:
        ids: list[list[int]] = self._subject.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return ids
