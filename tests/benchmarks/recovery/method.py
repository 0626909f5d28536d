"""SASC as the stages do it, from their own functions: what `make bench-recovery` measures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.config import Sasc
from stages.sasc.candidates import themes
from stages.sasc.scoring import choose, null_scores, p_value, sasc_score
from stages.sasc.summarise import Summariser
from stages.sasc.synthesis import Synthesizer
from tests.benchmarks.recovery.harness import Judged
from tests.benchmarks.recovery.modules import Array, Encoder, generator


@dataclass(frozen=True)
class SascMethod:
    """See `harness.Method`."""

    summariser: Summariser
    synthesizer: Synthesizer
    encoder: Encoder
    """Random directions of its space are the functions without a concept."""
    sasc: Sasc
    _written: dict[tuple[str, int], tuple[list[str], list[str]]] = field(default_factory=dict)

    async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
        """Up to sasc.candidates different explanations, each from another draw."""
        found = await themes(self.summariser, ranked[: self.sasc.kept], self.sasc, seed)
        return [theme.candidate.text for theme in found]

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
        """The place of the winner."""
        return choose(scores)

    def p_value(self, judged: Sequence[Judged], winner: int, ngrams: Sequence[str], seed: int) -> float:
        """(1 + nulls that do as well) / (1 + nulls); each null chooses among the same candidates for itself."""
        directions = generator("nulls", seed).standard_normal(
            (self.encoder.encode(ngrams[:1]).shape[1], self.sasc.nulls)
        )
        relevant = [self.encoder.encode(one.relevant) @ directions for one in judged]  # each (texts, nulls)
        baseline = [self.encoder.encode(one.baseline) @ directions for one in judged]
        sigma = np.std(self.encoder.encode(ngrams) @ directions, axis=0)  # (nulls,)
        nulls = null_scores(
            [(texts[0::2], against[0::2]) for texts, against in zip(relevant, baseline, strict=True)],
            [(texts[1::2], against[1::2]) for texts, against in zip(relevant, baseline, strict=True)],
            sigma,
        )
        return p_value(judged[winner].score_report, nulls)
