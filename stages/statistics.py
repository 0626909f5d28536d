"""Statistics that scores share: correlations from sums over sequences, bootstrap intervals, permutation p-values.

A bootstrap resamples the sums of sequences and never tokens; scipy.stats has no bootstrap of clusters within strata, and its
`pearsonr` takes 170 times as long on the units of a shard.

Shapes: N tokens, S sequences, R resamples.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
N_SUMS = 6
MIDDLE = 5.0
"""Of the scale of expected activations, 0 to 10."""


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
    if not len(starts) - 1:
        return np.zeros((0, N_SUMS))
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
