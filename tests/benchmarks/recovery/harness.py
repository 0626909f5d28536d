"""Planted concepts through a method of explanation: does the winning explanation name the concept?"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from stages.sasc.synthesize import HALVES, deal
from stages.score.statistics import permutation_p
from tests.benchmarks.recovery.concepts import Concept
from tests.benchmarks.recovery.modules import (
    Array,
    Encoder,
    Module,
    Setting,
    generator,
    null_modules,
    planted_module,
    responses,
    shown_ngrams,
)

LOG = logging.getLogger(__name__)
NULLS = 20
"""Null modules whose p-values are reported, for each half of the concepts, setting and seed."""
REFERENCES = 40
"""Null modules that p-values are told by, as many as a run has by default."""
TOP = 10
"""N-grams looked at to see whether the answer stands among them."""


class Method(Protocol):
    """What is measured: from n-grams with their responses to explanations, texts, and scores."""

    async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
        """Different explanations, the method's own favourite first; the n-grams come by falling response."""
        ...

    async def texts(self, explanation: str, seed: int) -> tuple[Sequence[str], Sequence[str]]:
        """Texts for and against an explanation."""
        ...

    def score(self, relevant: Array, baseline: Array, sigma: float) -> float:
        """From the responses to texts for and against."""
        ...

    def choose(self, scores: Sequence[float]) -> int:
        """The place of the winner among scores on the texts that choose."""
        ...


@dataclass(frozen=True)
class Outcome:
    """A module explained once."""

    module: str
    concept: Concept | None
    held_out: bool
    setting: Setting
    seed: int
    top: Sequence[str]
    """The n-grams with the largest responses."""
    candidates: Sequence[str]
    scores: Sequence[float]
    """Of all candidates on the texts that do not choose."""
    winner: int | None
    """None for a module that failed."""
    p_value: float = np.nan
    """Of the winner's score among those of the null modules that are references."""

    @property
    def explanation(self) -> str | None:
        """The winner."""
        return None if self.winner is None else self.candidates[self.winner]

    @property
    def score(self) -> float:
        """The winner's, NaN without one."""
        return np.nan if self.winner is None else self.scores[self.winner]

    @property
    def found(self) -> bool:
        """Whether the winner names the concept; a module that failed is a miss."""
        return self.explanation is not None and self.names_concept(self.explanation)

    def right(self) -> list[bool]:
        """Of each candidate, whether it names the concept; all false for a module without one."""
        return [self.names_concept(text) for text in self.candidates]

    def names_concept(self, text: str) -> bool:
        """Whether the pattern of the module's concept matches."""
        return self.concept is not None and self.concept.matches(text)


async def explain_module(
    module: Module, setting: Setting, seed: int, method: Method, concepts: Sequence[Concept]
) -> Outcome:
    """Explain a module from the n-grams of a setting, and choose and score its explanations by texts.

    A module without an explanation, or without a score for any, has failed: it has no winner, and the others go on.

    Raises:
        UserError, OSError, MemoryError: what is no module's own, such as a key that the endpoint refuses.
    """
    ngrams = shown_ngrams(module, setting, concepts)
    values = responses(module, ngrams, setting, seed)
    order = np.argsort(-values, kind="stable")
    ranked = [(ngrams[place], float(values[place])) for place in order]
    own_seed = int(generator("explain", module.name, str(module.held_out), setting, seed).integers(2**31))
    candidates: list[str] = []
    scores: dict[str, list[float]] = {half: [] for half in HALVES}
    failure = "there are too few texts for and against its explanations"
    try:
        candidates = await method.explain(ranked, own_seed)
        texts = [await method.texts(text, own_seed) for text in candidates]
        scores = judge(module, texts, float(values.std()), method)
    except Exception as error:
        if stops_the_shard(error):
            raise
        candidates, failure = [], f"{type(error).__name__}: {error}"
    winner = method.choose(scores["select"]) if candidates else None
    if winner is None or not np.isfinite([scores[half][winner] for half in HALVES]).all():
        LOG.warning("%s (%s, seed %d) failed: %s", module.name, setting, seed, failure)
        winner = None
    return Outcome(
        module.name,
        module.concept,
        module.held_out,
        setting,
        seed,
        [text for text, _ in ranked[:TOP]],
        candidates,
        scores["report"],
        winner,
    )


def judge(
    module: Module, texts: Sequence[tuple[Sequence[str], Sequence[str]]], sigma: float, method: Method
) -> dict[str, list[float]]:
    """By half, the score of each explanation on its texts for and against it; a text is in the same half for all of them."""
    kinds = [kind for pair in texts for kind in pair]
    values = [module.values(kind) for kind in kinds]
    dealt = [np.asarray(halves, dtype=str) for halves in deal(kinds)]
    scores: dict[str, list[float]] = {}
    for half in HALVES:
        own = [found[halves == half] for found, halves in zip(values, dealt, strict=True)]
        scores[half] = [method.score(*pair, sigma) for pair in zip(own[::2], own[1::2], strict=True)]
    return scores


async def explain_half(
    concepts: Sequence[Concept],
    held_out: bool,
    setting: Setting,
    seed: int,
    method: Method,
    encoder: Encoder,
    few: int | None = None,
    at_once: int = 1,
) -> list[Outcome]:
    """Every planted module of one half, and null modules; the p-values come from further null modules, the references.

    All null modules go through the whole procedure, as planted ones do: n-grams, explanations, texts, scores.

    Args:
        few: of the planted, the null and the reference modules each, where not all are wanted.
        at_once: modules under way at a time, for methods that wait for a server.
    """

    async def explain(module: Module) -> Outcome:
        return await explain_module(module, setting, seed, method, concepts)

    half = [concept for concept in concepts if concept.held_out == held_out]
    nulls = null_modules(half, encoder, NULLS + REFERENCES, setting, seed)
    references = await bounded_gather(explain, nulls[NULLS:][:few], at_once)
    planted = [planted_module(concept, encoder) for concept in half[:few]]
    outcomes = await bounded_gather(explain, [*planted, *nulls[:NULLS][:few]], at_once)
    scores = np.asarray([outcome.score for outcome in references])
    return [replace(outcome, p_value=permutation_p(outcome.score, scores)) for outcome in outcomes]
