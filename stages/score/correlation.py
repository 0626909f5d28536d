"""The correlation of true and expected activations, with its interval: the preferred score (Bills et al. 2023)."""

import numpy as np
import pyarrow as pa

from pipeline.schemas import column
from stages.score.scorer import Explained, Scorer
from stages.statistics import bootstrap_interval, pearson


def score(explained: Explained) -> dict[str, float]:
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


SCORER = Scorer(
    "Pearson correlation of true and expected activations, with its interval",
    (
        column("correlation", pa.float64(), "Pearson correlation of true and expected activations, report split"),
        column("ci_low", pa.float64(), "lower end of its bootstrap interval over sequences"),
        column("ci_high", pa.float64(), "upper end of its bootstrap interval over sequences"),
        column("correlation_random", pa.float64(), "the same over the random sequences alone"),
        column("correlation_sequence", pa.float64(), "mean of the correlations within each sequence"),
    ),
    score,
)
