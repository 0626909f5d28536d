"""The score of an explanation by texts for and against it, its interval, and its p-value.

Shapes: N texts, R null units.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
LEVEL = 0.95
LEAST = 2
"""Texts of each kind that a score needs."""
BLOCK = 1 << 20
"""Numbers of a resample that are held at a time."""


def sasc_score(relevant: npt.ArrayLike, baseline: npt.ArrayLike, sigma: float) -> float:
    """(mean f(relevant) - mean f(baseline)) / sigma (Singh et al. 2023, section 3).

    Responses that are not finite are left out. NaN where fewer than LEAST of a kind are left, or sigma is not positive.

    Args:
        relevant, baseline: responses to the texts for and against the explanation, in activation units.
        sigma: standard deviation of the responses to the n-grams, in the same units.
    """
    first, second = _finite(relevant), _finite(baseline)
    if min(len(first), len(second)) < LEAST or not (np.isfinite(sigma) and sigma > 0):
        return np.nan
    return float((first.mean() - second.mean()) / sigma)


def choose(scores: Sequence[float]) -> int:
    """The place of the best score, the first one among equals; one that is not finite never wins, 0 where none is."""
    values = np.asarray(scores, dtype=np.float64)
    return int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))


def interval(
    relevant: npt.ArrayLike, baseline: npt.ArrayLike, sigma: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Ends of the percentile bootstrap interval of `sasc_score`; the texts of each kind are drawn anew by themselves."""
    if not np.isfinite(sasc_score(relevant, baseline, sigma)):
        return np.nan, np.nan
    differences = (
        _resampled(_finite(relevant), resamples, rng) - _resampled(_finite(baseline), resamples, rng)
    ) / sigma
    low, high = np.quantile(differences, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def p_value(score: float, nulls: Values) -> float:
    """(1 + null units that score at least as much) / (1 + null units); NaN for a score that is not finite.

    Args:
        nulls: (R,) scores of the null units; those that are not finite are left out.
    """
    known = nulls[np.isfinite(nulls)]
    return float((1 + np.sum(known >= score)) / (1 + len(known))) if np.isfinite(score) else np.nan


def _finite(values: npt.ArrayLike) -> Values:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _resampled(values: Values, resamples: int, rng: np.random.Generator) -> Values:
    """(resamples,) means of texts drawn with replacement."""
    step = max(1, BLOCK // len(values))
    parts = [
        values[rng.integers(len(values), size=(min(step, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)
