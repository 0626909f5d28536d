"""What a scorer is, and the scores of Bills et al. 2023: correlations, what calibrated values explain, and controls.

Shapes: N tokens of all sequences, R rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.schemas import column
from stages.score.kept_sequences import NOT_KNOWN, Kept
from stages.score.pairs import Pairs
from stages.score.statistics import Floats, correlation_interval, permutation_p
from stages.settings import Score

SINGLE_CONTROLS = ("lookup", "top_token", "constant", "inverted")


@dataclass(frozen=True)
class Explained:
    """All that a scorer may use of one explanation."""

    select: Pairs
    """Its sequences on the select split, on which calibrations are fitted."""
    report: Pairs
    """Its sequences on the report split, on which scores are published."""
    controls: Mapping[str, Pairs]
    """What was simulated beside it on the report sequences, by CONTROLS. Of the candidates of each source of the shuffled ones it is the
    one that does best on the select split, as the explanation itself was chosen."""
    settings: Score
    rng: np.random.Generator
    kept: Kept = NOT_KNOWN


@dataclass(frozen=True)
class Scorer:
    """One or more numbers for an explanation."""

    summary: str
    """One line for people."""
    columns: tuple[pa.Field, ...]
    """What it adds to the scores table."""
    score: Callable[[Explained], Mapping[str, float]]
    """The numbers by column; NaN where one is undefined, which becomes null."""


def correlations(explained: Explained) -> dict[str, float]:
    """Over the report split, over its random sequences alone, and within sequences."""
    report, settings = explained.report, explained.settings
    value, is_random = report.correlation, report.rows["is_random"]
    low, high = correlation_interval(
        report.rows["sums"], is_random.astype(np.int64), settings.bootstrap, settings.interval, explained.rng
    )
    within = report.correlations(np.arange(len(report.rows)))[1]
    within = within[np.isfinite(within)]
    return {
        "correlation": value,
        "ci_low": low if np.isfinite(value) else np.nan,
        "ci_high": high if np.isfinite(value) else np.nan,
        "correlation_random": report.where(is_random).correlation,
        "correlation_sequence": float(within.mean()) if within.size else np.nan,
    }


def fit_calibration(method: str, true: Floats, expected: Floats) -> Callable[[Floats], Floats]:
    """The map of a method (Bills et al. 2023, section on calibration).

    `linear` is the least-squares line with a slope of at least 0: an explanation that predicts the opposite must not
    be turned round by its calibration. `percentile` maps the sorted simulated values onto the sorted true ones; of equal simulated
    values, all get the largest true one that falls to them, as in the code of Bills et al.

    Args:
        true: (N,) activations on the select split.
        expected: (N,) expected activations there.
    """
    if method == "none" or true.size == 0:
        return lambda values: values
    if method == "percentile":
        xs, ys = np.sort(expected), np.sort(true)
        return lambda values: np.interp(values, xs, ys)
    means = float(true.mean()), float(expected.mean())
    t, e = true - means[0], expected - means[1]
    variance = float(e @ e)
    slope = max(0.0, float(t @ e) / variance) if variance else 0.0
    offset = means[0] - slope * means[1]
    return lambda values: offset + slope * values


def shares_explained(explained: Explained) -> dict[str, float]:
    """The shares of the report split that values calibrated on the select split explain."""
    calibrate = fit_calibration(explained.settings.calibration, *explained.select.tokens[:2])
    true, simulated, _ = explained.report.tokens
    return shares_of(true, calibrate(simulated))


def shares_of(true: Floats, expected: Floats) -> dict[str, float]:
    """1 - mean(error) / mean(true), of squares and of absolute values; not centred on the mean; NaN where all is zero."""
    pairs = {"r_squared": ((true - expected) ** 2, true**2), "absolute_deviation": (abs(true - expected), abs(true))}
    return {name: 1 - float(e.mean() / t.mean()) if t.any() else np.nan for name, (e, t) in pairs.items()}


def control_correlations(explained: Explained) -> dict[str, float]:
    """Correlations of the controls on the report split, and what they say of the explanation's own.

    An explanation under which nothing varies has predicted nothing: it counts as 0, and never as absent, the unit's own as well as that of
    another unit. (Were the own one absent, what is left of the units would do better by chance than their controls.)
    """
    value, shuffled = explained.report.correlation, explained.controls["shuffled"]
    values = np.nan_to_num(shuffled.correlations(shuffled.rows["source"])[1])
    mean = float(values.mean()) if values.size else np.nan
    own = float(np.nan_to_num(value)) if len(explained.report.rows) else np.nan
    return {
        "correlation_shuffled": mean,
        "n_shuffled": int(values.size),
        "selectivity": value - mean,
        "p_value": permutation_p(own, values),
        **{f"correlation_{name}": explained.controls[name].correlation for name in SINGLE_CONTROLS},
    }


CORRELATION = Scorer(
    "Pearson correlation of true and expected activations, with its interval",
    (
        column("correlation", pa.float64(), "Pearson correlation of true and expected activations, report split"),
        column("ci_low", pa.float64(), "lower end of its interval, a studentised bootstrap over sequences"),
        column("ci_high", pa.float64(), "upper end of its interval; null for fewer than two sequences of a band"),
        column("correlation_random", pa.float64(), "the same over the random sequences alone"),
        column("correlation_sequence", pa.float64(), "mean of the correlations within each sequence"),
    ),
    correlations,
)
CALIBRATED = Scorer(
    "shares of the squared and of the absolute activation that calibrated values explain",
    (
        column("r_squared", pa.float64(), "1 - mean((t-e)^2) / mean(t^2), e calibrated on select"),
        column("absolute_deviation", pa.float64(), "1 - mean|t-e| / mean|t|, e calibrated on select"),
    ),
    shares_explained,
)
CONTROLS = Scorer(
    "correlations under other explanations, and the share of them that do as well",
    (
        column(
            "correlation_shuffled",
            pa.float64(),
            "mean correlation under other units' explanations; 0 where nothing varies",
        ),
        column("n_shuffled", pa.int32(), "explanations of other units behind it"),
        column("selectivity", pa.float64(), "correlation minus correlation_shuffled"),
        column("p_value", pa.float64(), "permutation p-value of the correlation among the shuffled ones"),
        column("correlation_lookup", pa.float64(), "correlation of the full token table, the baseline"),
        column(
            "correlation_top_token",
            pa.float64(),
            "correlation when one token is named, the most telling one of the table",
        ),
        column("correlation_constant", pa.float64(), "correlation of one sentence that suits every unit"),
        column("correlation_inverted", pa.float64(), "correlation of words that say the opposite of the explanation"),
    ),
    control_correlations,
)
