# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Pieces of a sequence's activations, some positions of SUB units, and what is taken from them, in numba.

A piece stays in the cache and is taken eight rows at a time, so that the running extremes and power sums are loaded and stored
an eighth as often. The histogram's bins, a byte each, are noted on the way and counted afterwards.

Loops over units are vectorised: their length is fixed, or they are written over equally indexed one-dimensional views,
because an index that the compiler cannot prove to be positive keeps it from that. Power sums are added up in the order of
the positions, in float64.
"""

import numpy as np
from numba import njit

from stages.record.histogram import BINS, OFFSET, SHIFT

SUB = 256
"""Units of a piece, whose running values (11 KiB) stay in the innermost cache."""
PIECES = 6
CHUNK = 64
"""Positions of a piece. All pieces together (384 KiB) stay in the second cache."""
ROWS = 8
COUNTED = 64
"""Units whose histograms stay in the innermost cache while a piece is counted; a part of SUB."""
I32, F32, F64, ONE16 = np.int32, np.float32, np.float64, np.uint16(1)
LAST = I32(BINS // 2 - 1)
ABOVE_ZERO = I32(BINS // 2)
MAGNITUDE = I32(0x7FFFFFFF)
FIRST = I32(OFFSET)
SHIFT32 = I32(SHIFT)
SIGN = I32(31)


def _taking(rows):
    """A function that takes `rows` rows (rows, SUB) of a piece into the running values of its units."""

    @njit(cache=True, nogil=True, fastmath={"contract"})
    def take(piece, bits, bins, extremes, power, binned, threshold):
        low, high, above = extremes[0], extremes[1], extremes[2]
        for u in range(SUB):
            least, most, fires = low[u], high[u], above[u]
            for j in range(rows):
                x = piece[j, u]
                most = x if x > most else most
                least = x if x < least else least
                fires += F32(1) if x > threshold else F32(0)
            low[u], high[u], above[u] = least, most, fires
        s1, s2, s3, s4 = power[0], power[1], power[2], power[3]
        for u in range(SUB):
            first, second, third, fourth = s1[u], s2[u], s3[u], s4[u]
            for j in range(rows):
                x = F64(piece[j, u])
                square = x * x
                first += x
                second += square
                third += x * square
                fourth += square * square
            s1[u], s2[u], s3[u], s4[u] = first, second, third, fourth
        if binned:
            for j in range(rows):
                find_bins(bits[j], bins[j])

    return take


@njit(cache=True, nogil=True)
def find_bins(bits, bins):
    """Histogram bins of one row of activations, from their bits."""
    for u in range(bits.size):
        magnitude = I32(I32((bits[u] & MAGNITUDE) >> SHIFT32) - FIRST)
        magnitude = magnitude if magnitude > I32(0) else I32(0)
        magnitude = magnitude if magnitude < LAST else LAST
        negative = I32(bits[u] >> SIGN)
        bins[u] = np.uint8(I32(ABOVE_ZERO + I32(magnitude ^ negative)))


take_rows, take_row = _taking(ROWS), _taking(1)


@njit(cache=True, nogil=True)
def count_bins(bins, histogram):
    """Count one row of U bins in the (U, STRIDE) histograms."""
    for u in range(histogram.shape[0]):
        histogram[u, bins[u]] += ONE16


@njit(cache=True, nogil=True)
def take_piece(piece, bits, bins, count, extremes, power, histogram, binned, threshold):
    """Take `count` rows of a piece in, and where `binned` count the bins of as many units as `histogram` has."""
    done = 0
    while done + ROWS <= count:
        stop = done + ROWS
        take_rows(piece[done:stop], bits[done:stop], bins[done:stop], extremes, power, binned, threshold)
        done = stop
    while done < count:
        take_row(
            piece[done : done + 1], bits[done : done + 1], bins[done : done + 1], extremes, power, binned, threshold
        )
        done += 1
    if not binned:
        return
    for first in range(0, histogram.shape[0], COUNTED):
        last = min(first + COUNTED, histogram.shape[0])
        for i in range(count):
            count_bins(bins[i, first:last], histogram[first:last])


@njit(cache=True, nogil=True)
def leave_out_nonfinite(column, bits, places, u, extremes, power, histogram, nonfinite, binned, threshold):
    """Do unit u's sequence again, `column` of which the positions `places` count, without what is not finite."""
    least, most, fires, one_bin = F32(np.inf), F32(-np.inf), F32(0), np.empty(1, np.uint8)
    power[:, u] = 0.0
    for t in places:
        x = column[t]
        if np.isfinite(x):
            least, most = min(least, x), max(most, x)
            fires += F32(1) if x > threshold else F32(0)
            square = F64(x) * F64(x)
            power[0, u] += F64(x)
            power[1, u] += square
            power[2, u] += F64(x) * square
            power[3, u] += square * square
        else:
            nonfinite[u] += 1
            if binned:
                find_bins(bits[t : t + 1], one_bin)
                histogram[u, one_bin[0]] -= ONE16
    extremes[0, u], extremes[1, u], extremes[2, u] = least, most, fires


@njit(cache=True, nogil=True)
def fill_pieces(sequence, first, last, begin, end, counted, pieces):
    """Copy the rows begin..end that count, units first..last, into the pieces. Returns how many rows there are."""
    rows = 0
    for t in range(begin, end):
        if not counted[t]:
            continue
        for k in range(pieces.shape[0]):
            start, stop = first + k * SUB, min(first + (k + 1) * SUB, last)
            if start >= stop:
                break
            source, target = sequence[t, start:stop], pieces[k, rows]
            for u in range(source.size):
                target[u] = source[u]
        rows += 1
    return rows
