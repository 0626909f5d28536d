"""Units that fire on eight words, with the right explanation and two spoilt ones (Oikarinen et al. 2025, missing and extra labels).

`missing` names four of the words; `extra` names the eight, and eight of another theme that are as frequent and do not fire the unit. A
score is sound where it falls for both in nearly all units. Texts are 32 words in a row, most of them words that mean little.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stages.judge.example_scorer import UnitTexts
from stages.judge.text_choice import choose_texts
from tests.stages.judge.units import exemplar

THEMES = [
    "rain snow storm fog wind cloud thunder hail", "bread butter cheese soup salt onion kitchen oven",
    "court judge law trial lawyer crime verdict jury", "ship harbour sail anchor captain deck voyage sailor",
    "sparrow eagle owl crow heron swallow falcon robin", "violin piano melody concert drum choir opera rhythm",
    "doctor nurse fever hospital wound vaccine surgery clinic", "bank money loan debt price market tax coin",
]  # fmt: skip
_LITTLE = (
    "the of and a in to was he that it his with as for had at by she on not be from which they have but an her or were one "
    "this when there all so would their we him been has more if no out do can what up said about other into than its time "
    "only could new them man some these then two first may any like now my such make over our even most me state after also"
)
FILLER = _LITTLE.split()
RARE, COMMON = 0.002, 0.05
"""Shares of the words that fire the rarest and the most common unit."""
TEXTS, SAMPLED, LENGTH = 1000, 256, 32
SPOILT = ("missing", "extra")
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class WordUnit:
    """The texts of a unit, and the words that each explanation names."""

    texts: UnitTexts
    fires_on: frozenset[str]
    explanations: dict[str, str]
    """By right, missing and extra."""


def word_units(count: int, examples: int = 50, context: int = LENGTH, seed: int = 0) -> Iterator[WordUnit]:
    """So many units, from rare words to common ones, each asked about at most so many texts of either kind."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        own, other = (THEMES[(number + step) % len(THEMES)].split() for step in (0, 3))
        share = float(np.exp(rng.uniform(np.log(RARE), np.log(COMMON))))
        texts = _texts(rng, share, own, other, examples, context)
        few = rng.permutation(own)[: len(own) // 2].tolist()
        named = {"right": own, "missing": few, "extra": [*own, *other]}
        yield WordUnit(
            texts, frozenset(own), {which: f"the words {', '.join(words)}" for which, words in named.items()}
        )


def _texts(
    rng: np.random.Generator, share: float, own: list[str], other: list[str], examples: int, context: int
) -> UnitTexts:
    """A uniform sample and the strongest texts, chosen from as the stage chooses."""
    shape = (TEXTS, LENGTH)
    kinds = rng.choice(3, shape, p=[1 - 2 * share, share, share])
    words = np.where(
        kinds == 0, rng.choice(FILLER, shape), np.where(kinds == 1, rng.choice(own, shape), rng.choice(other, shape))
    )
    values = np.where(kinds == 1, rng.uniform(6, 10, shape), -rng.uniform(0.5, 1.5, shape)).astype(np.float32)
    strongest = np.argsort(-values.max(axis=1), kind="stable")[:10]
    kept = np.union1d(np.arange(SAMPLED), strongest)
    chosen = choose_texts(values[kept].max(axis=1), kept < SAMPLED, 0.0, examples, rng)
    shown = [
        exemplar(int(row), "quiet", [f" {word}" for word in words[row]], values[row]).around(context) for row in kept
    ]
    count = min(len(chosen.fires), len(chosen.quiet))
    return UnitTexts(
        "layers.0.mlp", 3, "+", [shown[place] for place, _ in chosen.fires[:count]], [decile for _, decile in chosen.fires[:count]],
        [shown[place] for place in chosen.quiet[:count]], chosen.fires_above, chosen.share_firing,
    )  # fmt: skip


def shares_of_falls(score: Callable[[WordUnit, str], float], units: Iterator[WordUnit]) -> dict[str, float]:
    """By SPOILT, the share of the units whose score is lower for the spoilt explanation than for the right one.

    Args:
        score: of a unit by an explanation.
    """
    falls: dict[str, list[bool]] = {which: [] for which in SPOILT}
    for unit in units:
        right = score(unit, unit.explanations["right"])
        for which in SPOILT:
            falls[which].append(bool(score(unit, unit.explanations[which]) < right))
    return {which: float(np.mean(found)) for which, found in falls.items()}
