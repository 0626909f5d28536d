"""Score the explanations of one unit against its true activations.

The candidate is chosen on `select`; everything that is published is computed on `report`.
"""

from typing import Any

import numpy as np

from stages.score.calibration import absolute_deviation, fit_calibration, r_squared
from stages.score.pairing import Ints, Paired
from stages.score.sums import Floats, bootstrap_interval, pearson, permutation_p
from stages.settings import Score

SINGLE_CONTROLS = ("lookup", "top_token", "constant")


def correlation(paired: Paired, rows: Ints) -> float:
    """Pearson correlation over all tokens of some rows; NaN where undefined."""
    return float(pearson(paired.sums[rows].sum(axis=0)))


def choose_candidate(paired: Paired, own: Ints, n_candidates: int) -> tuple[int, Floats]:
    """The candidate with the best correlation on `select`, the first among equals, and the correlations of all.

    Args:
        own: rows of the unit's own explanations.

    Returns:
        The number of the candidate, 0 where no correlation is defined; (n_candidates,) correlations.
    """
    on_select = own[~paired.is_report[own]]
    values = np.array([correlation(paired, on_select[paired.candidate[on_select] == c]) for c in range(n_candidates)])
    return (int(np.nanargmax(values)) if np.isfinite(values).any() else 0), values


def score_explanation(
    config: Score, paired: Paired, select: Ints, report: Ints, rng: np.random.Generator
) -> dict[str, Any]:
    """All scores of one explanation; NaN where one is undefined.

    Args:
        select: its rows on the select split, on which the calibration is fitted.
        report: its rows on the report split.
    """
    sums, is_random = paired.sums[report], paired.is_random[report]
    value = correlation(paired, report)
    low, high = bootstrap_interval(sums, is_random.astype(np.int64), config.bootstrap, config.interval, rng)
    calibrate = fit_calibration(config.calibration, *paired.tokens(select))
    true, simulated = paired.tokens(report)
    within = pearson(sums)
    return {
        "correlation": value,
        "ci_low": low if np.isfinite(value) else np.nan,
        "ci_high": high if np.isfinite(value) else np.nan,
        "correlation_random": correlation(paired, report[is_random]),
        "correlation_sequence": float(np.nanmean(within)) if np.isfinite(within).any() else np.nan,
        "r_squared": r_squared(true, calibrate(simulated)),
        "absolute_deviation": absolute_deviation(true, calibrate(simulated)),
        "coverage": mean_coverage(paired, report),
        "n_sequences": len(report),
        "n_tokens": int(sums[:, 0].sum()),
    }


def score_controls(value: float, paired: Paired, rows: Ints) -> dict[str, Any]:
    """The same unit under other explanations: shuffled ones with selectivity and p-value, and the single controls.

    Args:
        value: the correlation of the explanation itself.
        rows: rows of the unit on the report split.
    """
    shuffled = rows[paired.control[rows] == "shuffled"]
    sources = np.unique(paired.source[shuffled])
    values = np.array([correlation(paired, shuffled[paired.source[shuffled] == source]) for source in sources])
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if known.size else np.nan
    single = {
        f"correlation_{name}": correlation(paired, rows[paired.control[rows] == name]) for name in SINGLE_CONTROLS
    }
    return {
        "correlation_shuffled": mean,
        "n_shuffled": int(known.size),
        "selectivity": value - mean,
        "p_value": permutation_p(value, values),
        **single,
    }


def mean_coverage(paired: Paired, rows: Ints) -> float:
    """Mean probability mass that the simulator found on the numbers."""
    parts = [paired.coverage[paired.starts[row] : paired.starts[row + 1]] for row in rows]
    return float(np.mean(np.concatenate(parts))) if parts else np.nan
