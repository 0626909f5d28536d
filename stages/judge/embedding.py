"""`embedding`: the cosine of an explanation and a text by a sentence embedder; no language model (Paulo et al. 2024).

It says how well the words call up the topic of the texts; what an explanation says about grammar or single letters it cannot see.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.execution.stage import Context
from pipeline.subjects.loading.model_source import resolve_model, with_revision
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts, texts_of
from stages.methods import Method
from stages.settings import Simulate

if TYPE_CHECKING:
    from pipeline.subjects.embedder import Embedder, Vectors

KEPT = 16_384
"""Vectors in memory beyond which those of earlier shards are let go; 25 MB for all-MiniLM."""


class EmbeddingScorer(ExampleScorer):
    """Ranks texts by their cosine with the explanation; a text is embedded once for all explanations."""

    def __init__(self, embedder: "Embedder") -> None:
        self.model = with_revision(embedder.name, embedder.revision)
        self._embedder = embedder
        self._vectors: dict[str, Vectors] = {}

    def prepare(self, units: Sequence[UnitTexts], explanations: Sequence[str]) -> None:
        """Embed everything together: a pass of the embedder has room for many texts."""
        if len(self._vectors) > KEPT:
            self._vectors = {}
        self._embed([*explanations, *(item.text for unit in units for item in texts_of(unit))])

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:  # noqa: ARG002 - the contract
        """The cosine for each text."""
        texts = [item.text for item in items]
        self._embed([explanation, *texts])
        wanted = self._vectors[explanation]
        return [(item, Answer(None, value=float(self._vectors[item.text] @ wanted))) for item in items]

    def _embed(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors |= dict(zip(new, self._embedder.encode(new), strict=True))


def _build(context: Context, *_: object) -> EmbeddingScorer:
    from pipeline.subjects.embedder import load_embedder

    return EmbeddingScorer(load_embedder(context.config[Simulate].embedder))


def _settings(config: RunConfig) -> dict[str, Any]:
    return {"embedder": resolve_model(config[Simulate].embedder).revision}


EMBEDDING = Method("the cosine of explanation and text by a sentence embedder", _build, "none", settings=_settings)
