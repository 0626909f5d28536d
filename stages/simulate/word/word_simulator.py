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

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_source import resolve_model
from stages.english.text import Text, Values
from stages.methods import Method
from stages.settings import Simulate
from stages.simulate.simulator import SCALE, Simulation, Simulator
from stages.simulate.word.meaning import Meaning
from stages.simulate.word.reader import read_explanation
from stages.simulate.word.rules import Rule, RuleReading

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder
    from pipeline.subjects.loading.model_loading import LoadedModel

WORD_LIST = Prompt("simulate/word_list.v1")
MOST_TEXTS = 4096
"""Sequences whose words are kept in memory."""


_read_text = lru_cache(MOST_TEXTS)(Text.read)


class WordSimulator:
    """Reads an explanation into rules of form, position and meaning, and gives each token the best rule's value.

    Args:
        embedder: embeds words and phrases; its vocabulary, ordered by frequency, gives the common words.
        language_model: lists what an explanation calls up; without one, meaning is by embedding alone.
        prompt: asks it for the list.
    """

    def __init__(
        self,
        embedder: "Embedder",
        language_model: "LoadedModel | None" = None,
        prompt: Prompt = WORD_LIST,
    ) -> None:
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
        return {
            phrase: dict(zip(words, self._meaning.values(phrase, words).tolist(), strict=True)) for phrase in phrases
        }


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
