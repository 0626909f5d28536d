# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Sums of simulated sequences and correlations from them, in numba.

Shapes: R rows (simulated sequences), N tokens.
"""

import numpy as np
from numba import njit

MIDDLE = 5.0
"""Of the scale of expected activations, 0 to 10."""


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
def correlation_of(n, t, e, tt, ee, te):
    """Pearson's r from sums as of `row_sums`; NaN where either side has no variance.

    scipy.stats.pearsonr takes 170 times as long on the units of a shard.
    """
    if n < 2:
        return np.nan
    true, expected = tt - t * t / n, ee - e * e / n
    if not (true > 1e-12 * tt and expected > 1e-12 * ee):
        return np.nan
    return min(max((te - t * e / n) / np.sqrt(true * expected), -1.0), 1.0)


@njit(cache=True)
def grouped_correlations(sums, groups, weights):
    """The groups of rows, rising, and Pearson's r over each.

    Args:
        sums: (R, 6) as of `row_sums`.
        groups: (R,) number of each row's group.
        weights: (R,)
    """
    order = np.argsort(groups, kind="mergesort")
    found, values, n = np.empty(order.size, np.int64), np.empty(order.size), 0
    total = np.zeros(6)
    for place in range(order.size):
        row = order[place]
        for k in range(6):
            total[k] += sums[row, k] * weights[row]
        if place + 1 == order.size or groups[order[place + 1]] != groups[row]:
            found[n] = groups[row]
            values[n] = correlation_of(total[0], total[1], total[2], total[3], total[4], total[5])
            total[:] = 0
            n += 1
    return found[:n], values[:n]


@njit(cache=True)
def stands_for(is_top, groups, total, top, random, known):
    """(R,) how many sequences each row stands for, NaN where that cannot be told; see `kept_sequences.Drawn.weights`."""
    order = np.argsort(groups, kind="mergesort")
    found, start, others = np.full(order.size, np.nan), 0, total - top
    if total <= 0 or others < 0 or (others > 0 and known <= 0):
        return found
    for place in range(order.size):
        if place + 1 < order.size and groups[order[place + 1]] == groups[order[place]]:
            continue
        tops = 0
        for row in order[start : place + 1]:
            tops += 1 if is_top[row] else 0
        rests = place + 1 - start - tops
        if (tops or not top) and (rests or not others):
            of_top = top / tops if top else 1.0
            of_rest = others / (random * (rests / known)) if others else 1.0
            for row in order[start : place + 1]:
                found[row] = of_top if is_top[row] else of_rest
        start = place + 1
    return found
