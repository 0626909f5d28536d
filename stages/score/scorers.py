"""What a scorer is, and the scores of Bills et al. 2023: correlations, what calibrated values explain, and controls.

Shapes: N tokens of all sequences, R rows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import column
from stages.score.statistics import Floats, Ints, correlation_interval, pearson, permutation_p, sequence_sums
from stages.settings import Score

if TYPE_CHECKING:
    import pandas as pd

SINGLE_CONTROLS = ("lookup", "top_token", "constant")


@dataclass(frozen=True)
class Pairs:
    """Simulated sequences beside their true activations."""

    rows: "pd.DataFrame"
    """index, candidate (-1 for a control), control, source, source_candidate, split, is_random (a top sequence may have been drawn
    as well), and by token true (NaN where a token does not count), expected and coverage."""
    sums: Floats
    """(rows, 6) as of `sequence_sums`."""

    @classmethod
    def of(cls, rows: "pd.DataFrame") -> "Pairs":
        """Pairs with their sums."""
        lengths = rows["true"].map(len).to_numpy(np.int64)
        starts, groups = np.concatenate([[0], np.cumsum(lengths)]), np.repeat(rows["index"].to_numpy(), lengths)
        return cls(rows, sequence_sums(flat(rows["true"]), flat(rows["expected"]), starts, groups))

    def where(self, wanted: npt.ArrayLike) -> "Pairs":
        """The rows for which (R,) `wanted` holds."""
        kept = np.asarray(wanted, dtype=bool)
        return Pairs(self.rows[kept], self.sums[kept])

    @property
    def correlation(self) -> float:
        """Pearson correlation over all tokens of the rows; NaN where it is undefined."""
        return float(pearson(self.sums.sum(axis=0)))

    def correlations(self, groups: Ints) -> tuple[Ints, Floats]:
        """The groups of the rows, rising, and the correlation over each; NaN where it is undefined."""
        found, place = np.unique(groups, return_inverse=True)
        sums = np.zeros((len(found), self.sums.shape[1]))
        np.add.at(sums, place, self.sums)
        return found, pearson(sums)

    def tokens(self) -> tuple[Floats, Floats]:
        """True and expected values of the tokens that count."""
        true, expected = flat(self.rows["true"]), flat(self.rows["expected"])
        counts = np.isfinite(true) & np.isfinite(expected)
        return true[counts], expected[counts]


def flat(arrays: Iterable[npt.ArrayLike]) -> Floats:
    """Some arrays one after the other."""
    return np.concatenate([np.zeros(0), *arrays])


@dataclass(frozen=True)
class Explained:
    """All that a scorer may use of one explanation."""

    select: Pairs
    """Its sequences on the select split, on which calibrations are fitted."""
    report: Pairs
    """Its sequences on the report split, on which scores are published."""
    controls: Pairs
    """What was simulated beside it on the report sequences, by `control` and, for shuffled ones, by `source`: of the candidates of each
    source the one that does best on the select split, as the explanation itself was chosen."""
    settings: Score
    rng: np.random.Generator


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
    value, is_random = report.correlation, report.rows["is_random"].to_numpy(dtype=bool)
    low, high = correlation_interval(
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
    variance = float(expected.var())
    covariance = float(np.mean((expected - expected.mean()) * (true - true.mean())))
    slope = max(0.0, covariance / variance) if variance else 0.0
    offset = float(true.mean()) - slope * float(expected.mean())
    return lambda values: offset + slope * values


def shares_explained(explained: Explained) -> dict[str, float]:
    """The shares of the report split that values calibrated on the select split explain."""
    calibrate = fit_calibration(explained.settings.calibration, *explained.select.tokens())
    true, simulated = explained.report.tokens()
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
    controls, value = explained.controls, explained.report.correlation
    kinds = controls.rows["control"]
    shuffled = controls.where(kinds == "shuffled")
    values = np.nan_to_num(shuffled.correlations(shuffled.rows["source"].to_numpy(np.int64))[1])
    mean = float(values.mean()) if values.size else np.nan
    own = float(np.nan_to_num(value)) if len(explained.report.rows) else np.nan
    return {
        "correlation_shuffled": mean,
        "n_shuffled": int(values.size),
        "selectivity": value - mean,
        "p_value": permutation_p(own, values),
        **{f"correlation_{name}": controls.where(kinds == name).correlation for name in SINGLE_CONTROLS},
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
    ),
    control_correlations,
)
