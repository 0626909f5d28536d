# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Resampling of sequences, and precision over all thresholds with one sequence after another left out, in numba.

Shapes: S sequences, H strata, N tokens.
"""

import numpy as np
from numba import njit

CORRELATION, COSINE, F1 = 0, 1, 2
"""Kinds of statistics, see `transformed`."""
FLAT = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@njit(cache=True, fastmath={"contract"})
def transformed(kind, n, t, e, tt, ee, te):
    """A statistic of sums on the scale that its interval is taken on, and how fast it moves with each sum.

    CORRELATION takes the sums of `row_sums` to Fisher's z of Pearson's r, COSINE those of values that are not shifted to
    Fisher's z, and F1 takes (true positives, predicted ones, positives, ...) to the logit. NaN or infinite where it has no value.
    """
    if kind == F1:
        hits, missed = n, t + e - 2 * n
        if hits <= 0 or missed <= 0:
            return (np.nan if t + e <= 0 else (-np.inf if hits <= 0 else np.inf)), FLAT
        return np.log(2 * hits / missed), (1 / hits + 2 / missed, -1 / missed, -1 / missed, 0.0, 0.0, 0.0)
    if n < 2:
        return np.nan, FLAT
    if kind == COSINE:
        t, e = 0.0, 0.0
    true, expected = tt - t * t / n, ee - e * e / n
    if not (true > 1e-12 * tt and expected > 1e-12 * ee):
        return np.nan, FLAT
    both = np.sqrt(true * expected)
    r = (te - t * e / n) / both
    left = 1 - r * r
    if left < 1e-12:
        return np.inf * r, FLAT
    by_true, by_expected, by_product = -r / 2 / true / left, -r / 2 / expected / left, 1 / both / left
    by_n = by_t = by_e = 0.0
    if kind == CORRELATION:
        by_n = t * e / (n * n) * by_product + t * t / (n * n) * by_true + e * e / (n * n) * by_expected
        by_t = -e / n * by_product - 2 * t / n * by_true
        by_e = -t / n * by_product - 2 * e / n * by_expected
    return np.arctanh(r), (by_n, by_t, by_e, by_true, by_expected, by_product)


@njit(cache=True, fastmath={"contract"})
def error_of(sums, drawn, slopes, bounds, left, moves):
    """The standard error of a statistic by the infinitesimal jackknife, from how much each drawn sequence moves it.

    Args:
        slopes: how fast it moves with each of the sums.
        moves: (S,) room for these.
    """
    a, b, c, d, e, f = slopes
    variance = 0.0
    for stratum in range(left.size):
        first, last = bounds[stratum], bounds[stratum + 1]
        count = last - first
        if left[stratum] == 0 or count < 1:
            continue
        mean, spread = 0.0, 0.0
        for place in range(first, last):
            x = sums[drawn[place]]
            moves[place] = a * x[0] + b * x[1] + c * x[2] + d * x[3] + e * x[4] + f * x[5]
            mean += moves[place]
        mean /= count
        for place in range(first, last):
            spread += (moves[place] - mean) ** 2
        if spread > 1e-24 * count * mean * mean:  # else it is rounding
            variance += left[stratum] * spread * (count / max(count - 1, 1))
    return np.sqrt(variance)


@njit(cache=True, fastmath={"contract"})
def studentised(kind, sums, bounds, left, resamples, seed, level):
    """A statistic with its standard error, and two quantiles of how far it is in resamples, each by its own error.

    Args:
        sums: (S, 6) of sequences, weighted; those of a stratum together.
        bounds: (H + 1,) where each stratum begins, and the end.
        left: (H,) the share of each stratum that was not drawn: 0 where all of it is there, which is then not resampled.
        level: of the upper quantile, above 0.5; the lower one is as far from the other end. NaN where no resample has an error.
    """
    drawn, moves, fixed, s = np.arange(len(sums)), np.zeros(len(sums)), np.zeros(6), np.zeros(6)
    for stratum in range(left.size):
        for place in range(bounds[stratum], bounds[stratum + 1]):
            s += sums[place]
            if left[stratum] == 0:
                fixed += sums[place]
    value, slopes = transformed(kind, s[0], s[1], s[2], s[3], s[4], s[5])
    if not np.isfinite(value):
        return value, np.nan, np.nan, np.nan
    error = error_of(sums, drawn, slopes, bounds, left, moves)
    distances, found, state = np.empty(resamples), 0, np.uint64(seed)
    for _ in range(resamples if left.any() else 0):
        s0, s1, s2, s3, s4, s5 = fixed[0], fixed[1], fixed[2], fixed[3], fixed[4], fixed[5]
        for stratum in range(left.size):
            if left[stratum] > 0:
                first, count = bounds[stratum], np.uint64(bounds[stratum + 1] - bounds[stratum])
                for place in range(first, bounds[stratum + 1]):  # SplitMix64 (Steele, Lea and Flood 2014)
                    state += np.uint64(0x9E3779B97F4A7C15)
                    bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    high = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
                    drawn[place] = first + np.int64((high * count) >> np.uint64(32))
                    x = sums[drawn[place]]
                    s0, s1, s2, s3, s4, s5 = s0 + x[0], s1 + x[1], s2 + x[2], s3 + x[3], s4 + x[4], s5 + x[5]
        z, slopes = transformed(kind, s0, s1, s2, s3, s4, s5)
        if np.isfinite(z):
            own_error = error_of(sums, drawn, slopes, bounds, left, moves)
            if own_error > 0:
                distances[found] = (z - value) / own_error
                found += 1
    if not found:
        return value, error, np.nan, np.nan
    return value, error, quantile_of(distances[:found], 1 - level), quantile_of(distances[:found], level)


@njit(cache=True)
def quantile_of(values, level):
    """Of values, between two of them by a line, as numpy takes it."""
    place = level * (values.size - 1)
    low = min(int(np.floor(place)), values.size - 1)
    parted = np.partition(values, low)
    if low + 1 == values.size:
        return parted[low]
    return parted[low] + (place - low) * (parted[low + 1 :].min() - parted[low])


@njit(cache=True)
def average_precision(fires, rows, order, ends, weights):
    """Precision averaged over the recall of all thresholds, of weighted tokens; NaN where none fires.

    Args:
        fires, rows: (N,) whether a token fires, and the number of its sequence.
        order: (N,) tokens by falling prediction.
        ends: where in the order each run of equal predictions ends; they come in at one threshold.
        weights: (S,)
    """
    hits, taken, area, start = 0.0, 0.0, 0.0, 0
    for end in ends:
        hit = 0.0
        for place in range(start, end):
            weight = weights[rows[order[place]]]
            taken += weight
            if fires[order[place]]:
                hit += weight
        hits += hit
        if taken > 0:
            area += hit * hits / taken
        start = end
    return area / hits if hits > 0 else np.nan


@njit(cache=True)
def runs_of_equals(expected, order):
    """Where in the order each run of equal predictions ends."""
    ends, n = np.empty(order.size, np.int64), 0
    for place in range(order.size):
        if place + 1 == order.size or expected[order[place + 1]] != expected[order[place]]:
            ends[n] = place + 1
            n += 1
    return ends[:n]


@njit(cache=True)
def jackknifed_precision(fires, expected, rows, weights, bounds, left):
    """The average precision, and its standard error from leaving out one sequence after another of the strata that were drawn from."""
    order = np.argsort(-expected)
    ends = runs_of_equals(expected, order)
    value, variance = average_precision(fires, rows, order, ends, weights), 0.0
    for stratum in range(left.size):
        first, last = bounds[stratum], bounds[stratum + 1]
        count = last - first
        if left[stratum] == 0 or count < 2:
            continue
        total, squares, n = 0.0, 0.0, 0
        changed = weights.copy()
        for out in range(first, last):
            changed[first:last] = weights[first:last] * (count / (count - 1))
            changed[out] = 0
            without = average_precision(fires, rows, order, ends, changed)
            if np.isfinite(without):
                total += without
                squares += without * without
                n += 1
        if n:
            variance += left[stratum] * (count - 1) / count * max(squares - total * total / n, 0.0)
    return value, np.sqrt(variance)


@njit(cache=True)
def best_threshold(fires, expected, weights):
    """The prediction from which on tokens are taken to fire, so that F1 is largest; the highest among equals, NaN where none fires.

    Args:
        weights: (N,) of the tokens.
    """
    order = np.argsort(-expected)
    positives, hits, taken, best, found, start = 0.0, 0.0, 0.0, 0.0, np.nan, 0
    for token in range(expected.size):
        positives += weights[token] if fires[token] else 0.0
    for end in runs_of_equals(expected, order):
        for place in range(start, end):
            taken += weights[order[place]]
            hits += weights[order[place]] if fires[order[place]] else 0.0
        value = 2 * hits / (taken + positives)
        if value > best * (1 + 1e-12):
            best, found = value, expected[order[end - 1]]
        start = end
    return found
