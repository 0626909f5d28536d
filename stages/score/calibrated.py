"""Scores of the values themselves: simulated ones (0 to 10) are mapped to activations, fitted on `select` and never on what is scored."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipeline.schemas import column
from stages.score.scorer import Explained, Scorer
from stages.statistics import Floats

Calibration = Callable[[Floats], Floats]


def fit_calibration(method: str, true: Floats, expected: Floats) -> Calibration:
    """The map of a method (Bills et al. 2023, section on calibration).

    `linear` is the least-squares line with a slope of at least 0: an explanation that predicts the opposite must not
    be turned round by its calibration. `percentile` maps the sorted simulated values onto the sorted true ones.

    Args:
        true: (N,) activations on the select split.
        expected: (N,) expected activations there.
    """
    if method == "none" or true.size == 0:
        return lambda values: values
    if method == "percentile":
        xs, ys = np.sort(expected), np.sort(true)
        xs, first = np.unique(xs, return_inverse=True)
        ys = np.bincount(first, weights=ys) / np.bincount(first)
        return lambda values: np.interp(values, xs, ys)
    variance = float(expected.var())
    slope = (
        max(0.0, float(np.mean((expected - expected.mean()) * (true - true.mean()))) / variance) if variance else 0.0
    )
    offset = float(true.mean()) - slope * float(expected.mean())
    return lambda values: offset + slope * values


def r_squared(true: Floats, expected: Floats) -> float:
    """1 - mean((t - e)^2) / mean(t^2), not centred on the mean (Bills et al. 2023); NaN where all is zero."""
    scale = float(np.mean(true**2)) if true.size else 0.0
    return 1 - float(np.mean((true - expected) ** 2)) / scale if scale else np.nan


def absolute_deviation(true: Floats, expected: Floats) -> float:
    """1 - mean|t - e| / mean|t|; NaN where all is zero."""
    scale = float(np.mean(np.abs(true))) if true.size else 0.0
    return 1 - float(np.mean(np.abs(true - expected))) / scale if scale else np.nan


def score(explained: Explained) -> dict[str, float]:
    """Both scores on the report split; NaN where they are undefined."""
    calibrate = fit_calibration(explained.settings.calibration, *explained.select.tokens())
    true, simulated = explained.report.tokens()
    calibrated = calibrate(simulated)
    return {"r_squared": r_squared(true, calibrated), "absolute_deviation": absolute_deviation(true, calibrated)}


SCORER = Scorer(
    "shares of the squared and of the absolute activation that calibrated values explain",
    (
        column("r_squared", pa.float64(), "1 - mean((t-e)^2) / mean(t^2), e calibrated on select"),
        column("absolute_deviation", pa.float64(), "1 - mean|t-e| / mean|t|, e calibrated on select"),
    ),
    score,
)
