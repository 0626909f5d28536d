"""Units of which the true scores are known, as far as their sequences go, to see how often intervals cover them.

Run by itself it prints the tables of docs/scores.md: `python -m tests.stages.score.coverage`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.evidence import Activations
from stages.score.corpus_scores import NAMES, corpus_scores
from stages.score.kept_sequences import Drawn, Kept
from stages.score.pairs import CONTROLS, ROW, Pairs
from stages.score.scorers import Explained
from stages.score.statistics import Floats, Ints, correlation_interval
from stages.score.sum_kernels import correlation_of, row_sums
from stages.settings import Score

TOKENS = 64
SIZES = ((5, 5), (10, 10), (10, 20), (10, 30), (10, 40))
"""Top and random sequences that a score is computed on."""
SAYS_SOMETHING = 0.05
"""A true score above this; below it, what little there is to find is in sequences that are seldom drawn."""
RESAMPLES = 400
FIRES = 0.99
"""A unit fires above this quantile."""
Numbers = Floats | Activations
Interval = Callable[..., tuple[float, float]]


def sequence_sums(true: Numbers, expected: Numbers, lengths: Ints) -> Floats:
    """Sums of the sequences of one unit, as the score stage takes them."""
    starts = np.cumsum(lengths) - lengths
    shift = np.nanmean(true) if true.size else 0.0
    sums: Floats = row_sums(true, expected, starts, starts, lengths, np.full(len(lengths), shift))
    return sums


def made_up_tokens(rng: np.random.Generator, sequences: int) -> tuple[Activations, Activations]:
    """True and expected activations of a unit on some sequences, (S, T) each.

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
    return true.astype(np.float32), expected.astype(np.float32)


def made_up_unit(rng: np.random.Generator, sequences: int = 2000) -> tuple[Floats, Floats]:
    """Sums of all of a unit's sequences, and of its top ones, the fortieth with the largest maxima."""
    true, expected = made_up_tokens(rng, sequences)
    sums = sequence_sums(true.ravel(), expected.ravel(), np.full(sequences, TOKENS))
    return sums, sums[np.argsort(-true.max(axis=1))[: sequences // 40]]


@dataclass(frozen=True)
class Covered:
    """How often intervals of 95 % hold the true value."""

    all: float
    """Share of all units."""
    telling: float
    """Share of those whose true value is above SAYS_SOMETHING."""
    width: float
    """Mean width of the intervals."""
    bias: float
    """Mean of what estimates are above the true value."""
    error: float
    """Root of the mean of the squares of that."""

    @classmethod
    def of(cls, found: list[tuple[float, float, float, float]]) -> "Covered":
        """That of (true value, estimate, low, high) of units; those without an interval count in neither share."""
        truth, value, low, high = np.transpose(found)
        held, known = (low <= truth) & (truth <= high), np.isfinite(low)
        bias, error = np.nanmean(value - truth), np.sqrt(np.nanmean((value - truth) ** 2))
        telling, width = held[known & (truth > SAYS_SOMETHING)].mean(), (high - low)[known].mean()
        return cls(*map(float, (held[known].mean(), telling, width, bias, error)))


def covered(units: int, top: int, random: int, interval: Interval = correlation_interval) -> Covered:
    """That of the correlation of so many units, each scored on sequences that are drawn from all of its own."""
    found = []
    for unit in range(units):
        rng = np.random.default_rng([11, unit])
        everything, strongest = made_up_unit(rng)
        truth = float(correlation_of(*(top * strongest.mean(axis=0) + random * everything.mean(axis=0))))
        drawn = [one[rng.integers(len(one), size=size)] for one, size in ((strongest, top), (everything, random))]
        sums, strata = np.concatenate(drawn), np.repeat([0, 1], [top, random])
        low, high = interval(sums, strata, RESAMPLES, 0.95, np.random.default_rng([12, unit]))
        if np.isfinite([low, high]).all():
            found.append((truth, float(correlation_of(*sums.sum(axis=0))), low, high))
    return Covered.of(found)


def kept(true: Activations, expected: Activations, is_report: bool, top: int, random: Ints) -> tuple[Pairs, Drawn]:
    """The sequences of a split that are kept of (S, T) all of them, as the score stage has them.

    Args:
        top: how many, those with the largest maxima.
        random: places of the uniformly drawn ones.
    """
    strongest = np.argsort(-true.max(axis=1), kind="stable")[:top]
    places = np.union1d(strongest, random)
    rows = np.zeros(len(places), ROW)
    rows["is_report"], rows["is_top"], rows["is_random"] = (
        is_report,
        np.isin(places, strongest),
        np.isin(places, random),
    )
    rows["length"], rows["shift"] = true.shape[1], true[places].mean()
    rows["start"] = rows["true_start"] = np.arange(len(places)) * true.shape[1]
    pairs = Pairs(rows, true[places].ravel(), expected[places].ravel())
    columns = (rows[name].copy() for name in ("true_start", "start", "length", "shift"))
    rows["sums"] = row_sums(pairs.true, pairs.expected, *columns)
    others = len(places) - len(strongest)
    return pairs, Drawn(len(true), len(strongest), others, others)


def explained(
    rng: np.random.Generator, true: Activations, expected: Activations, top: int, random: int, fires_above: float
) -> Explained:
    """An explanation on the kept sequences of a unit; the first half of all sequences is its split select, the second report."""
    half = len(true) // 2
    parts = []
    for is_report in (False, True):
        part, said = (one[half:] if is_report else one[:half] for one in (true, expected))
        parts.append(kept(part, said, is_report, top, rng.permutation(half)[:random]))
    (select, of_select), (report, of_report) = parts
    settings = Score(bootstrap=RESAMPLES)
    return Explained(
        select,
        report,
        {name: report.where(slice(0)) for name in CONTROLS},
        settings,
        rng,
        Kept(of_select, of_report, fires_above),
    )


def covered_on_corpus(units: int, top: int, random: int, sequences: int = 1000) -> dict[str, Covered]:
    """That of the scores on the corpus as it is, of so many units with so many sequences on the report split."""
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in NAMES}
    for unit in range(units):
        rng = np.random.default_rng([13, unit])
        true, expected = made_up_tokens(rng, 2 * sequences)
        fires_above = float(np.quantile(true, FIRES))
        drawn = explained(rng, true, expected, top, random, fires_above)
        whole = explained(rng, true, expected, top, sequences, fires_above)
        truth = corpus_scores(
            Explained(drawn.select, whole.report, whole.controls, whole.settings, rng, drawn_and_whole(drawn, whole))
        )
        scores = corpus_scores(drawn)
        for name in NAMES:
            ends = (scores[f"{name}_corpus{end}"] for end in ("", "_low", "_high"))
            if np.isfinite(truth[f"{name}_corpus"]):
                found[name].append((truth[f"{name}_corpus"], *ends))  # type: ignore[arg-type]
    return {name: Covered.of(of) for name, of in found.items()}


def drawn_and_whole(drawn: Explained, whole: Explained) -> Kept:
    """The select split of one and the report split of the other: so the true value is that at the threshold which was fitted."""
    return Kept(drawn.kept.select, whole.kept.report, drawn.kept.fires_above)


if __name__ == "__main__":
    for size in SIZES:
        one = covered(4000, *size)
        print(*size, f"{one.all:.1%} {one.telling:.1%} {one.width:.2f}", flush=True)  # noqa: T201 - for the document
    for size in SIZES[1:]:
        for name, one in covered_on_corpus(1000, *size).items():
            said = f"{one.all:.1%} {one.telling:.1%} {one.width:.2f} {one.bias:+.3f} {one.error:.3f}"
            print(*size, name, said, flush=True)  # noqa: T201 - for the document
