"""Scores on the corpus as it is: what they would be on all sequences of the report split, estimated from the kept ones.

Each kept sequence is weighted by the inverse of the probability that it was kept, see `kept_sequences` (Hajek's estimator for a stratified
sample). Pearson, cosine, F1, IoU and AUPRC on the corpus's own distribution tell an explanation that lacks half of its labels, or has
as many wrong ones, from the right one (Oikarinen et al. 2025). How many random sequences an estimate needs for that is in docs/scores.md.

Shapes: R rows, N tokens of all of them.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import column
from stages.score.pairs import Pairs
from stages.score.scorers import Explained, Scorer
from stages.score.statistics import Floats, Ints, bounds_of, precision_interval, studentised_interval

NAMES = {
    "correlation": "Pearson correlation",
    "cosine": "cosine of the true and the expected activations",
    "f1": "F1 of the tokens on which it is said to fire",
    "iou": "intersection over union of the tokens on which it fires and is said to",
    "auprc": "average precision of the expected activations",
}
ALL_OF_THEM = tuple(f"{name}_corpus{end}" for name in NAMES for end in ("", "_low", "_high"))
FIRING = "firing_corpus"
CONTROLS = ("correlation_corpus_shuffled", "correlation_corpus_lookup")
Firing = npt.NDArray[np.bool_]
Value = tuple[float, float, float]
"""A score and the ends of its interval."""
UNKNOWN: Value = (np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class _Sample:
    """The report sequences of an explanation, those of the band `top` first, as a sample of all of the split."""

    explained: Explained
    report: Pairs
    weights: Floats
    """(R,) sequences that each row stands for."""
    bounds: Ints
    """(3,) where the rows of `top` begin, those of the others, and the end."""
    left: Floats
    """(2,) the share of each of the two that was not drawn."""

    @classmethod
    def of(cls, explained: Explained) -> "_Sample | None":
        """That of an explanation; None where the probabilities are not known."""
        rows = explained.report.rows
        rows = rows[np.argsort(~rows["is_top"], kind="stable")]
        weights, tops = explained.kept.report.weights(rows["is_top"]), int(rows["is_top"].sum())
        if not len(weights) or not np.isfinite(weights).all():
            return None
        left = [1 - 1 / part[0] if len(part) else 0.0 for part in (weights[:tops], weights[tops:])]
        return cls(
            explained,
            replace(explained.report, rows=rows),
            weights,
            bounds_of([tops, len(rows) - tops]),
            np.array(left),
        )

    def total(self, sums: Floats) -> Floats:
        """(K,) of the whole split, from (R, K) of the rows."""
        total: Floats = self.weights @ sums
        return total

    def interval(self, kind: int, sums: Floats) -> tuple[float, float]:
        """That of a statistic of (R, K) sums, see `interval_kernels.transformed`."""
        settings, weighted = self.explained.settings, sums * self.weights[:, None]
        drawn = settings.bootstrap, settings.interval, self.explained.rng
        return studentised_interval(kind, weighted, self.bounds, self.left, *drawn)


def corpus_scores(explained: Explained) -> dict[str, float]:
    """All scores with their intervals, the share of tokens that the unit fires on, and the controls of the correlation."""
    found = dict.fromkeys((*ALL_OF_THEM, FIRING, *CONTROLS), np.nan)
    sample = _Sample.of(explained)
    if sample is None:
        return found
    values = dict(zip(NAMES, (*_of_sums(sample), *_of_firing(sample, found)), strict=True))
    for name, (value, low, high) in values.items():
        found |= {f"{name}_corpus": value, f"{name}_corpus_low": low, f"{name}_corpus_high": high}
    return found | _controls(explained)


def _of_sums(sample: _Sample) -> tuple[Value, Value]:
    """Correlation and cosine."""
    from stages.score.interval_kernels import CORRELATION, COSINE
    from stages.score.sum_kernels import correlation_of

    sums = sample.report.rows["sums"]
    raw = unshifted(sums, sample.report.rows["shift"])
    *_, tt, ee, te = sample.total(raw)
    cosine = float(te / np.sqrt(tt * ee)) if tt > 0 and ee > 0 else np.nan
    correlation = float(correlation_of(*sample.total(sums)))
    return (correlation, *sample.interval(CORRELATION, sums)), (cosine, *sample.interval(COSINE, raw))


def unshifted(sums: Floats, shifts: Floats) -> Floats:
    """(R, 6) sums as of `sum_kernels.row_sums` of the values as they are."""
    from stages.score.sum_kernels import MIDDLE

    n, t, e, tt, ee, te = sums.T
    m, c = shifts, MIDDLE
    return np.stack(
        [
            n,
            t + m * n,
            e + c * n,
            tt + 2 * m * t + m * m * n,
            ee + 2 * c * e + c * c * n,
            te + c * t + m * e + m * c * n,
        ],
        axis=1,
    )


def _of_firing(sample: _Sample, found: dict[str, float]) -> tuple[Value, Value, Value]:
    """F1, IoU and AUPRC; puts the share of tokens that the unit fires on into what is found."""
    above, (true, expected, row) = sample.explained.kept.fires_above, sample.report.tokens
    if not np.isfinite(above) or not len(row):
        return UNKNOWN, UNKNOWN, UNKNOWN
    fires, weight = true > above, sample.weights[row]
    found[FIRING] = float(weight[fires].sum() / weight.sum())
    if not fires.any():
        return UNKNOWN, UNKNOWN, UNKNOWN
    return (*_overlaps(sample, fires, expected, row), _precision(sample, fires, expected, row))


def _overlaps(sample: _Sample, fires: Firing, expected: Floats, row: Ints) -> tuple[Value, Value]:
    """F1 and IoU; the expected activation from which on tokens are said to fire is the best one on the select split."""
    from stages.score.interval_kernels import F1

    threshold = firing_threshold(sample.explained)
    if not np.isfinite(threshold):
        return UNKNOWN, UNKNOWN
    said = expected >= threshold
    sums = np.zeros((len(sample.weights), 6))
    for place, one in enumerate((fires & said, said, fires)):
        sums[:, place] = np.bincount(row, one, len(sample.weights))
    hits, predicted, positives, *_ = sample.total(sums)
    f1 = (float(2 * hits / (predicted + positives)), *sample.interval(F1, sums))
    value, low, high = (one / (2 - one) for one in f1)
    return f1, (value, low, high)


def firing_threshold(explained: Explained) -> float:
    """The expected activation from which on F1 on the select split is largest, of weighted tokens; NaN where it cannot be told."""
    from stages.score.interval_kernels import best_threshold

    weights = explained.kept.select.weights(explained.select.rows["is_top"])
    true, expected, row = explained.select.tokens
    if not expected.size or not np.isfinite(weights).all():
        return np.nan
    return float(best_threshold(true > explained.kept.fires_above, expected, weights[row]))


def _precision(sample: _Sample, fires: Firing, expected: Floats, row: Ints) -> Value:
    """The area under the curve of precision and recall, as the average precision; equal predictions come in at one threshold."""
    from stages.score.interval_kernels import jackknifed_precision

    bounds, left = sample.bounds, sample.left
    value, error = jackknifed_precision(fires, expected, row, sample.weights, bounds, left)
    return (value, *precision_interval(value, error, bounds, left, sample.explained.settings.interval))


def _controls(explained: Explained) -> dict[str, float]:
    """The correlation of other units' explanations and of the full token table; where nothing varies under one of them it counts as 0."""
    drawn = explained.kept.report
    shuffled, lookup = (explained.controls[name] for name in ("shuffled", "lookup"))
    source = shuffled.rows["source"]
    values = shuffled.correlations(source, drawn.weights(shuffled.rows["is_top"], source))[1]
    table = lookup.correlations(np.zeros(len(lookup.rows), np.int64), drawn.weights(lookup.rows["is_top"]))[1]
    means = [np.nan_to_num(values).mean() if values.size else np.nan, table[0] if table.size else np.nan]
    return dict(zip(CONTROLS, map(float, means), strict=True))


CORPUS = Scorer(
    "what scores would be on all sequences of the report split, with their intervals",
    (
        *(
            one
            for name, words in NAMES.items()
            for one in (
                column(f"{name}_corpus", pa.float64(), f"{words}, all of the report split as estimated from the kept sequences"),
                column(f"{name}_corpus_low", pa.float64(), "lower end of its interval"),
                column(f"{name}_corpus_high", pa.float64(), "upper end of its interval"),
            )
        ),
        column(FIRING, pa.float64(), "share of the report split's tokens that it fires on, what chance gets as auprc_corpus"),
        column(CONTROLS[0], pa.float64(), "mean correlation_corpus under other units' explanations; 0 where nothing varies"),
        column(CONTROLS[1], pa.float64(), "correlation_corpus of the full token table, the baseline"),
    ),
    corpus_scores,
)  # fmt: skip
