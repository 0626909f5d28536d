"""The scores of Bills et al. 2023: the correlation of true and expected activations, what calibrated values explain, and controls."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pipeline.schemas import column
from stages.score.scorer import Explained, Scorer
from stages.statistics import Floats, bootstrap_interval, pearson, permutation_p


def correlations(explained: Explained) -> dict[str, float]:
    """Over the report split, over its random sequences alone, and within sequences."""
    report, settings = explained.report, explained.settings
    value, is_random = report.correlation, report.rows["is_random"].to_numpy(dtype=bool)
    low, high = bootstrap_interval(
        report.sums, is_random.astype(np.int64), settings.bootstrap, settings.interval, explained.rng
    )
    within = pearson(report.sums)
    return {
        "correlation": value,
        "ci_low": low if np.isfinite(value) else np.nan,
        "ci_high": high if np.isfinite(value) else np.nan,
        "correlation_random": report.where(is_random).correlation,
        "correlation_sequence": float(np.nanmean(within)) if np.isfinite(within).any() else np.nan,
    }


CORRELATION = Scorer(
    "Pearson correlation of true and expected activations, with its interval",
    (
        column("correlation", pa.float64(), "Pearson correlation of true and expected activations, report split"),
        column("ci_low", pa.float64(), "lower end of its bootstrap interval over sequences"),
        column("ci_high", pa.float64(), "upper end of its bootstrap interval over sequences"),
        column("correlation_random", pa.float64(), "the same over the random sequences alone"),
        column("correlation_sequence", pa.float64(), "mean of the correlations within each sequence"),
    ),
    correlations,
)


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


def shares_explained(explained: Explained) -> dict[str, float]:
    """Both scores on the report split; NaN where they are undefined."""
    calibrate = fit_calibration(explained.settings.calibration, *explained.select.tokens())
    true, simulated = explained.report.tokens()
    calibrated = calibrate(simulated)
    return {"r_squared": r_squared(true, calibrated), "absolute_deviation": absolute_deviation(true, calibrated)}


CALIBRATED = Scorer(
    "shares of the squared and of the absolute activation that calibrated values explain",
    (
        column("r_squared", pa.float64(), "1 - mean((t-e)^2) / mean(t^2), e calibrated on select"),
        column("absolute_deviation", pa.float64(), "1 - mean|t-e| / mean|t|, e calibrated on select"),
    ),
    shares_explained,
)


SINGLE_CONTROLS = ("lookup", "top_token", "constant")


def control_correlations(explained: Explained) -> dict[str, float]:
    """Correlations of the controls on the report split, and what they say of the explanation's own."""
    controls, value = explained.controls, explained.report.correlation
    kinds = controls.rows["control"]
    shuffled = controls.where(kinds == "shuffled")
    sources = np.unique(shuffled.rows["source"])
    values = np.array([shuffled.where(shuffled.rows["source"] == source).correlation for source in sources])
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if known.size else np.nan
    return {
        "correlation_shuffled": mean,
        "n_shuffled": int(known.size),
        "selectivity": value - mean,
        "p_value": permutation_p(value, values),
        **{f"correlation_{name}": controls.where(kinds == name).correlation for name in SINGLE_CONTROLS},
    }


CONTROLS = Scorer(
    "correlations under other explanations, and the share of them that do as well",
    (
        column("correlation_shuffled", pa.float64(), "mean correlation under other units' explanations"),
        column("n_shuffled", pa.int32(), "explanations of other units behind it"),
        column("selectivity", pa.float64(), "correlation minus correlation_shuffled"),
        column("p_value", pa.float64(), "permutation p-value of the correlation among the shuffled ones"),
        column("correlation_lookup", pa.float64(), "correlation of the token lookup table"),
        column("correlation_top_token", pa.float64(), "correlation when only the top token is named"),
        column("correlation_constant", pa.float64(), "correlation of one sentence that suits every unit"),
    ),
    control_correlations,
)
