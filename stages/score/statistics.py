"""Correlations from sums over sequences, their intervals, and p-values.

A bootstrap resamples the sums of sequences and never tokens; scipy.stats has no bootstrap of clusters within strata, and its
`pearsonr` takes 170 times as long on the units of a shard.

Shapes: S sequences, N tokens of all of them, R resamples.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIDDLE = 5.0
"""Of the scale of expected activations, 0 to 10."""
LEAST_FREEDOM = 2
"""Degrees of freedom of Student's t that bound an interval."""
CLOSE = 1e-12
"""A correlation that is this close to -1 or 1 has no interval but itself, and two that are this close are equal."""


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


def correlation_interval(
    sums: Floats, strata: Ints, resamples: int, mass: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Studentised bootstrap interval of the correlation, on Fisher's z (Efron and Tibshirani 1993, chapter 12).

    Sequences are drawn with replacement within each stratum (`top` and `random` sequences were kept by design, so
    their numbers are not random). Tokens of a sequence stay together, because they are not independent. Each resample is held
    against its own standard error, which comes from how much each sequence moves the correlation. A factor of Student's t over
    the normal quantile, with as many degrees of freedom as there are sequences beyond one in each stratum, makes up for few sequences.
    An end is never farther than a t of LEAST_FREEDOM degrees would have it, as resamples in which nearly nothing is left have errors
    near 0. docs/scores.md has how often such intervals cover.

    Args:
        sums: (S, 6) as of `sequence_sums`.
        strata: (S,) number of the stratum of each sequence.
        mass: probability mass of the interval.

    Returns:
        Lower and upper end; NaN where there is no correlation, or no stratum has two sequences that differ in it.
    """
    from scipy.special import ndtri, stdtrit

    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    freedom = len(sums) - len(members)
    if freedom < 1:
        return np.nan, np.nan
    (value,), (error,) = _with_error(np.ones((1, len(sums))), sums, members)
    if not np.isfinite(value) or 1 - abs(value) < CLOSE:
        return float(value), float(value)
    weights = np.zeros((resamples, len(sums)))  # (R, S) how often each sequence is drawn
    for of in members:
        weights[:, of] = rng.multinomial(len(of), np.full(len(of), 1 / len(of)), size=resamples)
    values, errors = _with_error(weights, sums, members)
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = (np.arctanh(values) - np.arctanh(value)) / errors
    distances = distances[np.isfinite(distances)]
    if not distances.size or not error:
        return np.nan, np.nan
    upper = (1 + mass) / 2
    few = stdtrit(freedom, upper) / ndtri(upper)
    low, high = np.quantile(distances, [1 - upper, upper]) * few
    most = stdtrit(LEAST_FREEDOM, upper)
    low, high = max(low, -most) * error, min(high, most) * error
    return float(np.tanh(np.arctanh(value) - high)), float(np.tanh(np.arctanh(value) - low))


def _with_error(weights: Floats, sums: Floats, members: list[Ints]) -> tuple[Floats, Floats]:
    """(R,) correlations of resamples, and the standard errors of their Fisher's z by the infinitesimal jackknife.

    Args:
        weights: (R, S) how often each sequence is drawn.
        members: of each stratum.
    """
    totals = weights @ sums
    values, (n, t, e, tt, ee, _) = pearson(totals), np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        t_variance, e_variance = tt - t * t / n, ee - e * e / n
        both = np.sqrt(t_variance * e_variance)
        # how the correlation moves with each of the sums: (R, 6)
        slopes = [
            t * e / n**2 / both - values / 2 * (t * t / n**2 / t_variance + e * e / n**2 / e_variance),
            -e / n / both + values * t / n / t_variance,
            -t / n / both + values * e / n / e_variance,
            -values / 2 / t_variance,
            -values / 2 / e_variance,
            1 / both,
        ]
        moves = np.stack(slopes, axis=-1) @ sums.T  # (R, S)
        variance = np.zeros(len(weights))
        for of in members:
            drawn, moved, count = weights[:, of], moves[:, of], len(of)
            spread = moved - (drawn * moved).sum(axis=1, keepdims=True) / count
            variance += (drawn * spread**2).sum(axis=1) * (count / max(count - 1, 1))
        return values, np.sqrt(variance) / (1 - values**2)


def permutation_p(value: float, controls: Floats) -> float:
    """Share of controls that reach the value, the value itself counted among them: (1 + #{c >= v}) / (1 + n).

    Another unit's explanation may be the same one: then the two are equal, whatever their last bits are.
    """
    known = controls[np.isfinite(controls)]
    if not np.isfinite(value) or not known.size:
        return np.nan
    return float((1 + np.count_nonzero(known >= value - CLOSE)) / (1 + known.size))
