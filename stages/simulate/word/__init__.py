"""The word simulator: see `word_simulator`, which is imported when it is used."""

from collections.abc import Sequence
from typing import Any

from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_source import resolve_model
from stages.methods import Method
from stages.settings import Simulate
from stages.simulate.simulator import Simulator


def _build(settings: Simulate, model: Any, prompts: Sequence[Prompt]) -> Simulator:
    from pipeline.subjects.embedder import load_embedder
    from stages.simulate.word.word_simulator import WordSimulator

    return WordSimulator(load_embedder(settings.embedder), model, prompts[0])


METHOD = Method(
    "the meaning and the form of words, by a sentence embedder and rules; a language model, where there is one, lists examples",
    _build,
    model="inside",
    prompts=("simulate/word_list.v1",),
    settings=lambda simulate: {"embedder": resolve_model(simulate.embedder).revision},
)
