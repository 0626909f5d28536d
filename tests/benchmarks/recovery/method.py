"""SASC as the stages do it, from their own functions: what `make bench-recovery` measures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stages.sasc import Sasc
from stages.sasc.explain_ngrams import Summariser, themes
from stages.sasc.score_themes import sasc_score
from stages.sasc.synthesize import Synthesizer
from tests.benchmarks.recovery.modules import Array, Encoder


@dataclass(frozen=True)
class SascMethod:
    """See `harness.Method`."""

    summariser: Summariser
    synthesizer: Synthesizer
    encoder: Encoder
    """Embeds the explanations of a module together, before the synthesizer asks for each; it remembers them."""
    sasc: Sasc
    _written: dict[tuple[str, int], tuple[list[str], list[str]]] = field(default_factory=dict)

    async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
        """Up to sasc.candidates different explanations, each from another draw."""
        found = await themes(self.summariser, ranked[: self.sasc.kept], self.sasc, seed)
        texts = [theme.candidate.text for theme in found]
        self.encoder.encode(texts)
        return texts

    async def texts(self, explanation: str, seed: int) -> tuple[Sequence[str], Sequence[str]]:
        """Asked once for each explanation and seed."""
        if (explanation, seed) not in self._written:
            texts = await self.synthesizer.write(explanation, self.sasc.texts, seed)
            self._written[explanation, seed] = (texts.relevant, texts.baseline)
        return self._written[explanation, seed]

    def score(self, relevant: Array, baseline: Array, sigma: float) -> float:
        """In standard deviations of the responses to n-grams."""
        return sasc_score(relevant, baseline, sigma)

    def choose(self, scores: Sequence[float]) -> int:
        """The place of the winner, the first one among equals; a score that is not finite never wins."""
        return int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
