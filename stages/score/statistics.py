"""Intervals of statistics of sums over sequences, and p-values.

A bootstrap resamples the sums of sequences and never tokens; scipy.stats has no bootstrap of clusters within strata.
What takes long is in kernels, which are imported where they are used.

Shapes: S sequences, H strata.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
LEAST_FREEDOM = 2
"""Degrees of freedom of Student's t that bound an interval."""
CLOSE = 1e-12
"""Two correlations that are this close are equal, whatever their last bits are."""


def correlation_interval(
    sums: Floats, strata: Ints, resamples: int, mass: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Interval of the correlation over sequences that stand for themselves, each stratum drawn from a large one.

    Args:
        sums: (S, 6) as of `sum_kernels.row_sums`.
        strata: (S,) number of the stratum of each sequence.
        mass: probability mass of the interval.
    """
    from stages.score.interval_kernels import CORRELATION

    order, counts = np.argsort(strata, kind="stable"), np.bincount(strata, minlength=1)
    return studentised_interval(CORRELATION, sums[order], bounds_of(counts), np.ones(len(counts)), resamples, mass, rng)


def bounds_of(counts: npt.ArrayLike) -> Ints:
    """(H + 1,) where strata of so many sequences begin, one after the other, and the end."""
    return np.append(0, np.cumsum(counts))


def studentised_interval(
    kind: int, sums: Floats, bounds: Ints, left: Floats, resamples: int, mass: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Studentised bootstrap interval, on the scale of `interval_kernels.transformed` (Efron and Tibshirani 1993, chapter 12).

    Sequences are drawn with replacement within each stratum, as how many of each were kept was decided beforehand.
    Tokens of a sequence stay together, because they are not independent. Each resample is held
    against its own standard error, which comes from how much each sequence moves the statistic. A factor of Student's t over
    the normal quantile, with as many degrees of freedom as there are sequences beyond one in each stratum, makes up for few sequences.
    An end is never farther than a t of LEAST_FREEDOM degrees would have it, as resamples in which nearly nothing is left have errors
    near 0. docs/scores.md has how often such intervals cover.

    Args:
        kind: of the statistic, see `interval_kernels.transformed`.
        sums: (S, 6) of the sequences, each times its weight, those of a stratum together.
        bounds: (H + 1,) where each stratum begins, and the end.
        left: (H,) the share of each stratum that was not drawn; a stratum that is all there adds no error.
        mass: probability mass of the interval.

    Returns:
        Lower and upper end; NaN where the statistic is undefined, or no stratum has two sequences that differ in it. A correlation of 1
        or -1, and whatever was drawn whole, is its own interval.
    """
    from stages.score.interval_kernels import F1, studentised

    upper, seed = (1 + mass) / 2, int(rng.integers(2**63))
    value, error, low, high = studentised(kind, np.ascontiguousarray(sums), bounds, left, resamples, seed, upper)
    back = _from_logit if kind == F1 else math.tanh
    freedom = freedom_of(bounds, left)
    if not left.any() or (math.isinf(value) and kind != F1 and freedom > 0):
        return back(value), back(value)
    if not math.isfinite(value) or not error or freedom < 1 or math.isnan(low):
        return math.nan, math.nan
    few, most = factors_of_few(freedom, upper)
    low, high = max(low * few, -most) * error, min(high * few, most) * error
    return back(value - high), back(value - low)


def freedom_of(bounds: Ints, left: Floats) -> int:
    """Sequences beyond one in each stratum that was drawn from."""
    sizes = zip(bounds[:-1].tolist(), bounds[1:].tolist(), left.tolist(), strict=True)
    return sum(max(end - start - 1, 0) for start, end, share in sizes if share > 0)


def precision_interval(value: float, error: float, bounds: Ints, left: Floats, mass: float) -> tuple[float, float]:
    """Interval of an average precision on the scale of the logit, by Student's t.

    Args:
        error: its standard error, see `interval_kernels.jackknifed_precision`.
        bounds, left: as of `studentised_interval`.
    """
    from scipy.special import stdtrit

    freedom = freedom_of(bounds, left)
    if not left.any():
        return value, value
    if freedom < 1 or not error or not 0 < value < 1:
        return math.nan, math.nan
    width = float(stdtrit(freedom, (1 + mass) / 2)) * error / (value * (1 - value))
    middle = math.log(value / (1 - value))
    return _from_logit(middle - width), _from_logit(middle + width)


@lru_cache(1024)
def factors_of_few(freedom: int, level: float) -> tuple[float, float]:
    """Student's t over the normal quantile, and the quantile of Student's t with LEAST_FREEDOM degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(freedom, level) / ndtri(level)), float(stdtrit(LEAST_FREEDOM, level))


def _from_logit(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def permutation_p(value: float, controls: Floats) -> float:
    """Share of controls that reach the value, the value itself counted among them: (1 + #{c >= v}) / (1 + n).

    Another unit's explanation may be the same one: then the two are equal, whatever their last bits are.
    """
    known = controls[np.isfinite(controls)]
    if not np.isfinite(value) or not known.size:
        return np.nan
    return float((1 + np.count_nonzero(known >= value - CLOSE)) / (1 + known.size))
