"""Units of which the right explanation is known, and two ways of spoiling it (Oikarinen et al. 2025, missing and extra labels).

A unit fires on the tokens of a concept. Its right explanation labels these tokens. `missing` lacks half of the labels, drawn at
random; `extra` has as many wrong ones on top. A score of explanations is sound where it falls for both in nearly all units.

Shapes: S sequences of a unit, T tokens of each.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

RARE, COMMON = 0.002, 0.05
"""Shares of the tokens that belong to the rarest and to the most common concept."""
FULL = 10.0
"""What is predicted on a labelled token, on the scale of expected activations; 0 on the others."""
SPOILT = ("missing", "extra")
NEARLY_ALL = 0.9
"""A score passes a test where it falls in at least this share of the units."""


@dataclass(frozen=True)
class LabelledUnit:
    """All sequences of a unit, with the labels of three explanations."""

    true: Floats
    """(S, T) activations: 6 to 10 on nearly all tokens of the concept, noise about 0 on the others."""
    right: Labels
    """(S, T) the tokens of the concept."""
    missing: Labels
    extra: Labels

    def predicted(self, which: str) -> Floats:
        """(S, T) expected activations under the explanation `right`, `missing` or `extra`."""
        labels: Labels = getattr(self, which)
        return np.where(labels, FULL, 0.0)

    def strongest(self, count: int) -> Ints:
        """The sequences with the largest maxima, as `top` exemplars are chosen."""
        return np.argsort(-self.true.max(axis=1), kind="stable")[:count]


def labelled_unit(rng: np.random.Generator, share: float, sequences: int = 400, tokens: int = 64) -> LabelledUnit:
    """A unit whose concept makes up a share of the tokens and comes in bursts: many sequences have none of it."""
    shape = (sequences, tokens)
    often = np.clip(share * rng.gamma(1.0, 1.0, (sequences, 1)), 0, 1)
    right = rng.random(shape) < often
    right.flat[rng.choice(right.size, 4, replace=False)] = True  # a concept without tokens has no explanation
    fires = np.where(right, rng.random(shape) < 0.95, rng.random(shape) < share / 50)
    true = np.where(fires, rng.uniform(6, 10, shape), rng.normal(0, 0.3, shape))
    missing, extra = right.copy(), right.copy()
    positives, negatives = np.flatnonzero(right), np.flatnonzero(~right)
    missing.flat[rng.choice(positives, len(positives) // 2, replace=False)] = False
    extra.flat[rng.choice(negatives, min(len(positives), len(negatives)), replace=False)] = True
    return LabelledUnit(true, right, missing, extra)


def labelled_units(
    count: int, seed: int = 0, rare: float = RARE, common: float = COMMON, sequences: int = 400
) -> Iterator[LabelledUnit]:
    """So many units, from rare concepts to common ones."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield labelled_unit(rng, float(np.exp(rng.uniform(np.log(rare), np.log(common)))), sequences)


def shares_of_falls(
    score: Callable[[LabelledUnit, Floats], float], units: Iterator[LabelledUnit] | list[LabelledUnit]
) -> dict[str, float]:
    """By SPOILT, the share of the units whose score is lower for the spoilt explanation than for the right one; no score is no fall.

    Args:
        score: of a unit under (S, T) expected activations.
    """
    falls: dict[str, list[bool]] = {which: [] for which in SPOILT}
    for unit in units:
        right = score(unit, unit.predicted("right"))
        for which in SPOILT:
            falls[which].append(bool(score(unit, unit.predicted(which)) < right))
    return {which: float(np.mean(found)) for which, found in falls.items()}
