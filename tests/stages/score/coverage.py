"""Units of which the true correlation is known, as far as their sequences go, to see how often intervals cover it.

Run by itself it prints the table of docs/scores.md: `python -m tests.stages.score.coverage`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.score.statistics import Floats, correlation_interval, pearson, sequence_sums

TOKENS = 64
SIZES = ((5, 5), (10, 10), (10, 20), (10, 30))
"""Top and random sequences that a score is computed on."""
SAYS_SOMETHING = 0.05
"""A true correlation above this; below it, what little there is to find is in sequences that are seldom drawn."""
RESAMPLES = 400
Interval = Callable[..., tuple[float, float]]


def made_up_unit(rng: np.random.Generator, sequences: int = 2000) -> tuple[Floats, Floats]:
    """Sums of all of a unit's sequences, and of its top ones, the fortieth with the largest maxima.

    The unit fires in bursts: some sequences have many strong tokens and most have none. An explanation covers some of its uses, which
    go by sequences too, and fires elsewhere as well. How much of each is drawn for every unit.
    """
    rate, burst = np.exp(rng.uniform(np.log(0.2), np.log(6))), rng.uniform(0.3, 3)
    known, alarms = rng.uniform(0, 0.95), np.exp(rng.uniform(np.log(0.002), np.log(0.08)))
    background, spread = rng.uniform(0.02, 0.5), rng.uniform(0.3, 1.0)

    def by_sequence(values: Floats) -> Floats:
        return values[:, None]

    shape, often = (sequences, TOKENS), rate / TOKENS * rng.gamma(1 / burst, burst, sequences)
    fires = rng.random(shape) < by_sequence(often)
    noise = background * (rng.normal(size=shape) + by_sequence(rng.normal(size=sequences)) / 2)
    true = noise + fires * np.exp(spread * rng.normal(size=shape) + by_sequence(rng.normal(0, 0.25, sequences)))
    covered = fires & (rng.random((sequences, 1)) < known) & (rng.random(shape) < known)
    wrong = rng.random(shape) < by_sequence(alarms * rng.exponential(size=sequences))
    expected = np.clip((covered | wrong) * rng.normal(6, rng.uniform(0, 2), shape), 0, 10)
    starts, group = np.arange(sequences + 1) * TOKENS, np.zeros(true.size, np.int64)
    sums = sequence_sums(true.ravel(), expected.ravel(), starts, group)
    return sums, sums[np.argsort(-true.max(axis=1))[: sequences // 40]]


@dataclass(frozen=True)
class Covered:
    """How often intervals of 95 % hold the true correlation."""

    all: float
    """Share of all units."""
    telling: float
    """Share of those whose true correlation is above SAYS_SOMETHING."""
    width: float
    """Mean width of the intervals."""


def covered(units: int, top: int, random: int, interval: Interval = correlation_interval) -> Covered:
    """That of so many units, each scored on sequences that are drawn from all of its own."""
    rng, found = np.random.default_rng(11), []
    for _ in range(units):
        everything, strongest = made_up_unit(rng)
        truth = float(pearson(top * strongest.mean(axis=0) + random * everything.mean(axis=0)))
        drawn = [one[rng.integers(len(one), size=size)] for one, size in ((strongest, top), (everything, random))]
        strata = np.repeat([0, 1], [top, random])
        low, high = interval(np.concatenate(drawn), strata, RESAMPLES, 0.95, rng)
        if np.isfinite([low, high]).all():
            found.append((float(low <= truth <= high), truth, high - low))
    held, truths, widths = np.transpose(found)
    return Covered(float(held.mean()), float(held[truths > SAYS_SOMETHING].mean()), float(widths.mean()))


if __name__ == "__main__":
    for size in SIZES:
        one = covered(2000, *size)
        print(*size, f"{one.all:.1%} {one.telling:.1%} {one.width:.2f}")  # noqa: T201 - for the document
