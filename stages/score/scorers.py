"""What a scorer is, and the scores of Bills et al. 2023: correlations, what calibrated values explain, and controls.

A bootstrap resamples the sums of sequences and never tokens; scipy.stats has no bootstrap of clusters within strata, and its
`pearsonr` takes 170 times as long on the units of a shard.

Shapes: S sequences, N tokens of all of them, R resamples.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import column
from stages.settings import Score

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIDDLE = 5.0
"""Of the scale of expected activations, 0 to 10."""
SINGLE_CONTROLS = ("lookup", "top_token", "constant")


@dataclass(frozen=True)
class Pairs:
    """Simulated sequences beside their true activations."""

    rows: "pd.DataFrame"
    """index, candidate (-1 for a control), control, source, split, is_random (a top sequence may have been drawn as well), and by
    token true (NaN where a token does not count), expected and coverage."""
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
    """What was simulated beside it on the report sequences, by `control` and, for shuffled ones, by `source`."""
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


def fit_calibration(method: str, true: Floats, expected: Floats) -> Callable[[Floats], Floats]:
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

    An explanation of another unit under which nothing varies has predicted nothing: it counts as 0, and never as absent.
    """
    controls, value = explained.controls, explained.report.correlation
    kinds = controls.rows["control"]
    shuffled = controls.where(kinds == "shuffled")
    sources = np.unique(shuffled.rows["source"])
    values = np.array([shuffled.where(shuffled.rows["source"] == source).correlation for source in sources])
    values = np.nan_to_num(values)
    mean = float(values.mean()) if values.size else np.nan
    return {
        "correlation_shuffled": mean,
        "n_shuffled": int(values.size),
        "selectivity": value - mean,
        "p_value": permutation_p(value, values),
        **{f"correlation_{name}": controls.where(kinds == name).correlation for name in SINGLE_CONTROLS},
    }


def sequence_sums(true: Floats, expected: Floats, starts: Ints, group: Ints) -> Floats:
    """Count, sums, sums of squares and of products of each sequence.

    Args:
        true: (N,) activations of all sequences in a row; NaN where a token does not count.
        expected: (N,) expected activations.
        starts: (S + 1,) where each sequence starts, and the end of the last.
        group: (N,) number of the unit that a token belongs to.

    Returns:
        (S, 6): n, sum t, sum e, sum t^2, sum e^2, sum t e, in activation units, with t taken relative to the mean of
        its unit and e to the middle of its scale: this changes no correlation and keeps the sums precise.
    """
    counts = np.isfinite(true) & np.isfinite(expected)
    t = np.where(counts, true, 0.0)
    totals, numbers = np.bincount(group, weights=t), np.bincount(group, weights=counts)
    t = np.where(counts, t - (totals / np.maximum(numbers, 1))[group], 0.0)
    e = np.where(counts, expected - MIDDLE, 0.0)
    row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))  # (N,)
    columns = (counts.astype(np.float64), t, e, t * t, e * e, t * e)
    return np.stack([np.bincount(row, weights=column, minlength=len(starts) - 1) for column in columns], axis=1)


def pearson(sums: Floats) -> Floats:
    """Pearson correlations from sums.

    Args:
        sums: (..., 6) as of `sequence_sums`, added up over the sequences of interest.

    Returns:
        (...) from -1 to 1; NaN where either side has no variance.
    """
    n, t, e, tt, ee, te = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        true_variance, expected_variance = tt - t * t / n, ee - e * e / n
        flat = (true_variance <= 1e-12 * tt) | (expected_variance <= 1e-12 * ee) | (n < 2)
        r = (te - t * e / n) / np.sqrt(true_variance * expected_variance)
        return np.where(flat, np.nan, np.clip(r, -1.0, 1.0))


def bootstrap_interval(
    sums: Floats, strata: npt.NDArray[np.int64], resamples: int, mass: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of the correlation over resampled sequences.

    Sequences are drawn with replacement within each stratum (`top` and `random` sequences were kept by design, so
    their numbers are not random). Tokens of a sequence stay together, because they are not independent.

    Args:
        sums: (S, 6) as of `sequence_sums`.
        strata: (S,) number of the stratum of each sequence.
        mass: probability mass of the interval.

    Returns:
        Lower and upper end; NaN where no resample has a correlation.
    """
    if len(sums) < 2:
        return np.nan, np.nan
    weights = np.zeros((resamples, len(sums)))  # (R, S) how often each sequence is drawn
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = rng.multinomial(len(members), share, size=resamples)
    values = pearson(weights @ sums)
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - mass) / 2, (1 + mass) / 2])
    return float(low), float(high)


def permutation_p(value: float, controls: Floats) -> float:
    """Share of controls that reach the value, the value itself counted among them: (1 + #{c >= v}) / (1 + n)."""
    known = controls[np.isfinite(controls)]
    if not np.isfinite(value) or not known.size:
        return np.nan
    return float((1 + np.count_nonzero(known >= value)) / (1 + known.size))


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
