"""The word simulator: activations from the meaning and the form of whole words.

What it reads in an explanation, in any mixture, clauses parted by ";" or "and also", the strongest first:

- quoted strings: the words "of" and "in"; the word piece "tion"; words ending in "-ing", beginning with "un-",
  containing "graph"
- places: words right after "of"; before a comma; inside parentheses or quotation marks; the first word of a sentence,
  the last word of a line, the start of a text
- forms, by the names in FORMS of english.forms and the phrases in FORM_PHRASES of `reader`: numbers, past-tense verbs, proper names
- meaning: all that is left, such as "war and the military"; together with a form or a place it narrows that
- exclusions: animals but not "dog"; anything except numbers
- strength: sometimes, weakly, to a lesser degree; especially after "in"
- tokens: the last token of words about music

An explanation is read into rules (`reader`), which are applied to the words of a text (`rules`).
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_source import resolve_model
from stages.english.text import Text, Values
from stages.english.word_classes import COMMON, whole_words
from stages.methods import Method
from stages.settings import Simulate
from stages.simulate.simulation import SCALE, Simulation, Simulator
from stages.simulate.word.reader import INTRODUCTIONS, read_explanation
from stages.simulate.word.rules import Rule, RuleReading

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
MOST_PHRASES = 256
"""Phrases kept in memory, each with a number for each token of the language model."""
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
WORD_LIST = Prompt("simulate/word_list.v1")
MOST_TEXTS = 4096
"""Sequences whose words are kept in memory."""
_read_text = lru_cache(MOST_TEXTS)(Text.read)


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
        self._listing = Listing(*lister, self._common) if lister is not None else None
        self._vectors: dict[str, Floats] = {}
        self._phrase = lru_cache(MOST_PHRASES)(self._read_phrase)

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

    @cached_property
    def _common_vectors(self) -> Floats:
        return self._embedder.encode(self._common)

    def _read_phrase(self, phrase: str) -> _Phrase:
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
        self._anchor = self._ids(ANCHOR)
        self._first = lru_cache(MOST_WORDS)(self._find_first)

    def read(self, phrase: str) -> Floats:
        """(V,) log P(token | list of the phrase) - mean log P(token | list of something unrelated), standardised.

        Mean and deviation are those of the common words' first tokens.
        """
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

    @cached_property
    def _unrelated(self) -> Floats:
        """(V,) mean over unrelated phrases."""
        found: Floats = np.mean([self._log_probabilities(name) for name in UNRELATED], axis=0, dtype=np.float32)
        return found

    def _log_probabilities(self, phrase: str) -> Floats:
        """(V,) of the token after the prompt; phrases are run one by one, so that none depends on its neighbours."""
        import torch

        model = self._subject.model
        prompt = self._prompt.render(explanation=phrase[:LONGEST_LISTED])
        ids = torch.tensor([self._ids(prompt, special=True)], device=self._subject.device)
        options = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False, **options).logits[0, -1].float()
            result: Floats = torch.log_softmax(logits, dim=-1).cpu().numpy()
        return result

    def _firsts(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) the first token of each word after the prompt; -1 where the tokenizer joins it with what stands before."""
        return np.array([self._first(word) for word in words], dtype=np.int64)

    def _find_first(self, word: str) -> int:
        ids, size = self._ids(f"{ANCHOR} {word[:100]}"), len(self._anchor)
        return ids[size] if ids[:size] == self._anchor and len(ids) > size else -1

    def _ids(self, text: str, special: bool = False) -> list[int]:
        ids: list[int] = self._subject.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids


class WordSimulator:
    """Reads an explanation into rules of form, position and meaning, and gives each token the best rule's value."""

    def __init__(
        self, embedder: "Embedder", language_model: "LoadedModel | None" = None, prompt: Prompt = WORD_LIST
    ) -> None:
        """The embedder's vocabulary, by frequency, gives the common words.

        Args:
            language_model: lists, asked by the prompt, what an explanation calls up; without one, meaning is by embedding alone.
        """
        self.model = language_model.name if language_model else ""
        self.prompt_id = prompt.id if language_model else ""
        self._meaning = Meaning(embedder, None if language_model is None else (language_model, prompt))

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """Activations from 0 to 10 for every token of each sequence; the coverage is 1 throughout.

        A phrase that no rule of form or position accounts for is matched by its meaning. An explanation without any
        text gives Simulations without values, whose error says so.
        """
        if not explanation.strip():
            return [Simulation.failed("the explanation is empty") for _ in sequences]
        rules = read_explanation(explanation) or (Rule(meaning=explanation.strip()),)
        texts = [_read_text(tuple(sequence)) for sequence in sequences]
        fits = self._fits(rules, texts)

        def meaning(phrase: str, text: Text) -> Values:
            return np.array([fits[phrase].get(word.text, 0.0) for word in text.words], dtype=np.float64)

        values = [RuleReading(text, self._meaning.vocabulary, meaning).strongest(rules) for text in texts]
        return [Simulation.certain(SCALE * np.clip(value, 0.0, 1.0)) for value in values]

    def _fits(self, rules: Sequence[Rule], texts: Sequence[Text]) -> dict[str, dict[str, float]]:
        """For each phrase of the rules, the value of each lettered word of the texts."""
        phrases = dict.fromkeys(phrase for rule in rules for phrase in rule.meanings())
        if not phrases:
            return {}
        words = sorted(
            {word.text for text in texts for word, said in zip(text.words, text.lettered, strict=True) if said}
        )
        values = {phrase: self._meaning.values(phrase, words).tolist() for phrase in phrases}
        return {phrase: dict(zip(words, found, strict=True)) for phrase, found in values.items()}


def _build(settings: Simulate, model: Any, prompts: Sequence[Prompt]) -> Simulator:
    from pipeline.subjects.embedder import load_embedder

    return WordSimulator(load_embedder(settings.embedder), model, prompts[0])


METHOD = Method(
    "the meaning and the form of words, by a sentence embedder and rules; a language model, where there is one, lists examples",
    _build,
    model="inside",
    prompts=("simulate/word_list.v1",),
    settings=lambda simulate: {"embedder": resolve_model(simulate.embedder).revision},
)
