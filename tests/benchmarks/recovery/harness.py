"""Planted concepts through a method of explanation: does the winning explanation name the concept?"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

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

TOP = 10
"""N-grams looked at to see whether the answer stands among them."""


@dataclass(frozen=True)
class Judged:
    """One explanation's texts through the module."""

    relevant: Sequence[str]
    baseline: Sequence[str]
    score_select: float
    score_report: float


class Method(Protocol):
    """What is measured: from n-grams with their responses to explanations, texts, scores and a p-value."""

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

    def p_value(self, judged: Sequence[Judged], winner: int, ngrams: Sequence[str], seed: int) -> float:
        """How often a module without a concept does as well as the winner on its reported texts."""
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
    winner: int
    p_value: float

    @property
    def explanation(self) -> str:
        """The winner."""
        return self.candidates[self.winner]

    def right(self) -> list[bool]:
        """Of each candidate, whether it names the concept; all false for a module without one."""
        return [self.names_concept(text) for text in self.candidates]

    def names_concept(self, text: str) -> bool:
        """Whether the pattern of the module's concept matches."""
        return self.concept is not None and self.concept.matches(text)


def modules_of(concepts: Sequence[Concept], encoder: Encoder, held_out: bool) -> list[Module]:
    """The planted and the null modules of one half."""
    planted = [planted_module(concept, encoder) for concept in concepts if concept.held_out == held_out]
    return planted + null_modules(concepts, encoder, held_out)


async def explain_module(
    module: Module, setting: Setting, seed: int, method: Method, concepts: Sequence[Concept]
) -> Outcome:
    """Explain a module from the n-grams of a setting, and choose and score its explanations by texts."""
    ngrams = shown_ngrams(module, setting, concepts)
    values = responses(module, ngrams, setting, seed)
    order = np.argsort(-values, kind="stable")
    ranked = [(ngrams[place], float(values[place])) for place in order]
    own_seed = int(generator("explain", module.name, str(module.held_out), setting, seed).integers(2**31))
    candidates = await method.explain(ranked, own_seed)
    judged = [await _judge(module, text, float(values.std()), method, own_seed) for text in candidates]
    winner = method.choose([one.score_select for one in judged])
    return Outcome(
        module.name,
        module.concept,
        module.held_out,
        setting,
        seed,
        [text for text, _ in ranked[:TOP]],
        candidates,
        [one.score_report for one in judged],
        winner,
        method.p_value(judged, winner, ngrams, own_seed),
    )


async def _judge(module: Module, explanation: str, sigma: float, method: Method, seed: int) -> Judged:
    """Score an explanation on every second text for and against it, and on the others."""
    relevant, baseline = await method.texts(explanation, seed)
    of_relevant, of_baseline = module.values(relevant), module.values(baseline)
    select, report = (method.score(of_relevant[part::2], of_baseline[part::2], sigma) for part in (0, 1))
    return Judged(relevant, baseline, select, report)


async def explain_all(
    modules: Sequence[Module],
    settings: Sequence[Setting],
    seeds: Sequence[int],
    method: Method,
    concepts: Sequence[Concept],
) -> list[Outcome]:
    """Every module in every setting with every seed."""
    grid = itertools.product(settings, seeds, modules)
    return [await explain_module(module, setting, seed, method, concepts) for setting, seed, module in grid]
