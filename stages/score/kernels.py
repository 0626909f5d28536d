# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""What scoring a unit spends its time on, in numba: sums of sequences, resampling, precision over all thresholds.

Shapes: R rows (simulated sequences), K sums, S sequences, N tokens.
"""

import numpy as np
from numba import njit

MIDDLE = 5.0
"""Of the scale of expected activations, 0 to 10."""
CORRELATION, COSINE, F1 = 0, 1, 2
"""Kinds of statistics, see `transformed`."""


@njit(cache=True, nogil=True)
def row_sums(true, expected, true_starts, starts, lengths, shifts):
    """(R, 6) count, sum t, sum e, sum t^2, sum e^2, sum t e of each row, with t relative to the row's shift and e to MIDDLE.

    Args:
        true, expected: all activations in a row; NaN where a token does not count.
        true_starts, starts, lengths: (R,) where a row's tokens begin in each, and how many they are.
        shifts: (R,) near the mean of the row's unit: they change no correlation and keep the sums precise.
    """
    sums = np.zeros((starts.size, 6))
    for row in range(starts.size):
        for place in range(lengths[row]):
            t = np.float64(true[true_starts[row] + place]) - shifts[row]
            e = np.float64(expected[starts[row] + place]) - MIDDLE
            if np.isfinite(t) and np.isfinite(e):
                sums[row, 0] += 1
                sums[row, 1] += t
                sums[row, 2] += e
                sums[row, 3] += t * t
                sums[row, 4] += e * e
                sums[row, 5] += t * e
    return sums


@njit(cache=True, nogil=True)
def tokens_of(true, expected, true_starts, starts, lengths):
    """True and expected values of the tokens of all rows that count, and the number of the row that each is in."""
    total = lengths.sum()
    ts, es, rows, n = np.empty(total), np.empty(total), np.empty(total, np.int64), 0
    for row in range(starts.size):
        for place in range(lengths[row]):
            t, e = np.float64(true[true_starts[row] + place]), np.float64(expected[starts[row] + place])
            if np.isfinite(t) and np.isfinite(e):
                ts[n], es[n], rows[n] = t, e, row
                n += 1
    return ts[:n], es[:n], rows[:n]


@njit(cache=True, nogil=True)
def transformed(kind, s, slopes):
    """A statistic of sums on the scale that its interval is taken on; NaN or infinite where it has none there.

    CORRELATION takes the sums of `row_sums` to Fisher's z of Pearson's r, COSINE takes those of values that are not shifted to
    Fisher's z, and F1 takes (true positives, predicted ones, positives) to the logit.

    Args:
        s: (K,) sums.
        slopes: (K,) is filled with how fast the result moves with each of them.
    """
    slopes[:] = 0
    if kind == F1:
        missed = s[1] + s[2] - 2 * s[0]
        if s[0] <= 0 or missed <= 0:
            return np.nan if s[1] + s[2] <= 0 else (-np.inf if s[0] <= 0 else np.inf)
        slopes[0] = 1 / s[0] + 2 / missed
        slopes[1] = slopes[2] = -1 / missed
        return np.log(2 * s[0] / missed)
    n, t, e, tt, ee, te = s[0], s[1], s[2], s[3], s[4], s[5]
    if kind == COSINE:
        t, e = 0.0, 0.0
    if n < 2:
        return np.nan
    true, expected = tt - t * t / n, ee - e * e / n
    if true <= 1e-12 * tt or expected <= 1e-12 * ee:
        return np.nan
    both = np.sqrt(true * expected)
    r = (te - t * e / n) / both
    left = 1 - r * r
    if left < 1e-12:
        return np.inf * r
    if kind == CORRELATION:
        slopes[0] = (t * e / n**2 / both - r / 2 * (t * t / n**2 / true + e * e / n**2 / expected)) / left
        slopes[1] = (-e / n / both + r * t / n / true) / left
        slopes[2] = (-t / n / both + r * e / n / expected) / left
    slopes[3] = -r / 2 / true / left
    slopes[4] = -r / 2 / expected / left
    slopes[5] = 1 / both / left
    return np.arctanh(r)


@njit(cache=True, nogil=True)
def error_of(sums, drawn, slopes, bounds, left, moves):
    """The standard error of a statistic by the infinitesimal jackknife, from how much each drawn sequence moves it.

    Args:
        moves: (S,) room for these.
    """
    variance = 0.0
    for stratum in range(left.size):
        first, last = bounds[stratum], bounds[stratum + 1]
        count = last - first
        if left[stratum] == 0 or count < 1:
            continue
        mean, spread = 0.0, 0.0
        for place in range(first, last):
            moves[place] = 0.0
            for k in range(slopes.size):
                moves[place] += sums[drawn[place], k] * slopes[k]
            mean += moves[place] / count
        for place in range(first, last):
            spread += (moves[place] - mean) ** 2
        if spread > 1e-24 * count * mean * mean:  # else it is rounding
            variance += left[stratum] * spread * (count / max(count - 1, 1))
    return np.sqrt(variance)


@njit(cache=True, nogil=True)
def studentised(kind, sums, bounds, left, resamples, seed):
    """A statistic with its standard error, and how far it is in resamples, each by its own error; rising, the finite ones alone.

    Args:
        sums: (S, K) of sequences, weighted; those of a stratum together.
        bounds: (H + 1,) where each stratum begins, and the end.
        left: (H,) the share of each stratum that was not drawn: 0 where all of it is there, which is then not resampled.
    """
    slopes, s = np.zeros(sums.shape[1]), np.zeros(sums.shape[1])
    own, moves = np.arange(len(sums)), np.zeros(len(sums))
    for k in range(s.size):
        s[k] = sums[:, k].sum()
    value = transformed(kind, s, slopes)
    error = error_of(sums, own, slopes, bounds, left, moves) if np.isfinite(value) else np.nan
    distances, found, state = np.empty(resamples), 0, np.uint64(seed)
    if not np.isfinite(value) or not left.any():
        return value, error, distances[:0]
    drawn = own.copy()
    for _ in range(resamples):
        s[:] = 0
        for stratum in range(left.size):
            first, count = bounds[stratum], bounds[stratum + 1] - bounds[stratum]
            for place in range(first, first + count):
                if left[stratum] > 0:  # SplitMix64 (Steele, Lea and Flood 2014)
                    state += np.uint64(0x9E3779B97F4A7C15)
                    bits = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                    high = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
                    drawn[place] = first + np.int64((high * np.uint64(count)) >> np.uint64(32))
                for k in range(s.size):
                    s[k] += sums[drawn[place], k]
        z = transformed(kind, s, slopes)
        if np.isfinite(z):
            own_error = error_of(sums, drawn, slopes, bounds, left, moves)
            if own_error > 0:
                distances[found] = (z - value) / own_error
                found += 1
    return value, error, np.sort(distances[:found])


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def runs_of_equals(expected, order):
    """Where in the order each run of equal predictions ends."""
    ends, n = np.empty(order.size, np.int64), 0
    for place in range(order.size):
        if place + 1 == order.size or expected[order[place + 1]] != expected[order[place]]:
            ends[n] = place + 1
            n += 1
    return ends[:n]


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
