"""How well a judge's answers agree with the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measures:
    """NaN where undefined."""

    balanced_accuracy: float
    f1: float
    auroc: float
    f1_always_yes: float


def measures(fits: Sequence[bool], says: Sequence[bool], probabilities: Sequence[float | None]) -> Measures:
    """Agreement on N texts; nothing is defined unless some fit and some do not.

    Args:
        fits: the truth.
        says: the answers.
        probabilities: of yes; AUROC needs all of them.
    """
    truth, answer = np.asarray(fits, bool), np.asarray(says, bool)
    if not truth.any() or truth.all():
        return Measures(np.nan, np.nan, np.nan, np.nan)
    right = float(np.mean([answer[truth].mean(), (~answer[~truth]).mean()]))
    known = np.asarray([np.nan if value is None else value for value in probabilities], np.float64)
    return Measures(right, f1(truth, answer), auroc(truth, known), f1(truth, np.ones_like(truth)))


def f1(truth: Bools, answer: Bools) -> float:
    """Harmonic mean of precision and recall; 0 where nothing right is found."""
    return 2 * float((truth & answer).sum()) / float(truth.sum() + answer.sum())


def auroc(truth: Bools, values: Floats) -> float:
    """Share of (fitting, other) pairs in which the fitting one has the larger value, ties counting half."""
    if not np.isfinite(values).all():
        return np.nan
    ranks = rankdata(values)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
