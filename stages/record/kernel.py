# mypy: disable-error-code="no-untyped-def"
"""One pass over a batch of activations, in numba.

The activations lie in memory as (B, T, U). The pass goes over blocks of BLOCK units; for each block and each sequence
the (T, BLOCK) piece is read once from memory: four tokens at a time, so that the running extremes and power sums are
loaded and stored a quarter as often. The histogram's bins, a byte each, are noted on the way and counted afterwards.
Loops over units are vectorised: they are written over equally indexed one-dimensional views, because an index that
the compiler cannot prove to be positive keeps it from that.

Counts are kept in 16 bits, half the memory to move, and moved to larger ones before they could overflow.

NaN and infinite activations are found by the sum of squares, which no finite float32 makes infinite; only then is the
sequence of that one unit gone through again.
"""

import numpy as np
from numba import njit

from stages.record.histogram import BINS, OFFSET, SHIFT
from stages.record.tokens import GRID_BITS
from stages.record.winners import keep_top

BLOCK = 512
"""Units whose activations on a sequence (128 KiB for 64 tokens) stay in the cache while they are looked at."""
COUNTED = 32
"""Units whose histograms stay in the innermost cache while a sequence is counted."""
STRIDE = BINS + 16
"""Numbers from one unit's histogram to the next: no power of two, so that equal bins do not share a cache line's place,
nor a store seem to hit the load of another unit. It makes counting almost twice as fast."""
FULL = 2**16 - 1
"""Tokens that can be counted in 16 bits."""
I32 = np.int32
F32 = np.float32
LAST = I32(BINS // 2 - 1)
ABOVE_ZERO = I32(BINS // 2)
MAGNITUDE = I32(0x7FFFFFFF)
FIRST = I32(OFFSET)
SHIFT32 = I32(SHIFT)
SIGN = I32(31)
GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
"""Adding and taking away this float64 rounds to a multiple of 2**-GRID_BITS."""


@njit(cache=True, nogil=True)
def four_extremes(a, b, c, d, low, high, above, threshold):
    """Take four rows of U activations into the extremes of a sequence."""
    one, none = F32(1), F32(0)
    for u in range(a.size):
        w, x, y, z = a[u], b[u], c[u], d[u]
        most, least = high[u], low[u]
        most = w if w > most else most
        most = x if x > most else most
        most = y if y > most else most
        most = z if z > most else most
        least = w if w < least else least
        least = x if x < least else least
        least = y if y < least else least
        least = z if z < least else least
        high[u] = most
        low[u] = least
        first = (one if w > threshold else none) + (one if x > threshold else none)
        above[u] += first + ((one if y > threshold else none) + (one if z > threshold else none))


@njit(cache=True, nogil=True, fastmath={"contract"})
def four_powers(a, b, c, d, s1, s2, s3, s4):
    """Take four rows of U activations into the power sums of a sequence."""
    for u in range(a.size):
        w, x, y, z = np.float64(a[u]), np.float64(b[u]), np.float64(c[u]), np.float64(d[u])
        ww, xx, yy, zz = w * w, x * x, y * y, z * z
        s1[u] += (w + x) + (y + z)
        s2[u] += (ww + xx) + (yy + zz)
        s3[u] = s3[u] + w * ww + x * xx + y * yy + z * zz
        s4[u] = s4[u] + ww * ww + xx * xx + yy * yy + zz * zz


@njit(cache=True, nogil=True, fastmath={"contract"})
def one_token(a, low, high, above, s1, s2, s3, s4, threshold):
    """Take one row of U activations into the running values of a sequence."""
    for u in range(a.size):
        w = a[u]
        high[u] = w if w > high[u] else high[u]
        low[u] = w if w < low[u] else low[u]
        above[u] += F32(1) if w > threshold else F32(0)
        x = np.float64(w)
        s1[u] += x
        s2[u] += x * x
        s3[u] += x * (x * x)
        s4[u] += (x * x) * (x * x)


@njit(cache=True, nogil=True)
def find_bins(bits, bins):
    """Histogram bins of one row of U activations, from their bits."""
    for u in range(bits.size):
        magnitude = I32(I32((bits[u] & MAGNITUDE) >> SHIFT32) - FIRST)
        magnitude = magnitude if magnitude > I32(0) else I32(0)
        magnitude = magnitude if magnitude < LAST else LAST
        negative = I32(bits[u] >> SIGN)
        bins[u] = np.uint8(I32(ABOVE_ZERO + I32(magnitude ^ negative)))


@njit(cache=True, nogil=True)
def count_bins(bins, histogram):
    """Count one row of U bins in the (U, STRIDE) histograms."""
    for u in range(histogram.shape[0]):
        histogram[u, bins[u]] += np.uint16(1)


@njit(cache=True, nogil=True)
def leave_out_nonfinite(sequence, bits, places, u, extremes, power, histogram, nonfinite, threshold):
    """Do unit u's sequence again, without its NaN and infinite activations."""
    extremes[0, u], extremes[1, u], extremes[2, u] = np.inf, -np.inf, F32(0)
    power[:, u] = 0.0
    one_bin = np.empty(1, np.uint8)
    for t in places:
        value = sequence[t, u : u + 1]
        if np.isfinite(value[0]):
            low, high, above = extremes[0, u : u + 1], extremes[1, u : u + 1], extremes[2, u : u + 1]
            s1, s2, s3, s4 = power[0, u : u + 1], power[1, u : u + 1], power[2, u : u + 1], power[3, u : u + 1]
            one_token(value, low, high, above, s1, s2, s3, s4, threshold)
        else:
            nonfinite[u] += 1
            find_bins(bits[t, u : u + 1], one_bin)
            histogram[u, one_bin[0]] -= np.uint16(1)


@njit(cache=True, nogil=True)
def add_exactly(total, rest, value):
    """Add U float64 to the running pairs `total` + `rest` (two-sum)."""
    for u in range(value.size):
        new = total[u] + value[u]
        back = new - total[u]
        rest[u] += (total[u] - (new - back)) + (value[u] - back)
        total[u] = new


@njit(cache=True, nogil=True)
def scan_sequence(sequence, bits, places, threshold, extremes, power, bins, histogram, nonfinite):
    """Statistics of the W units of a (T, W) sequence at the positions `places`, and their counts in the histograms."""
    width = sequence.shape[1]
    extremes[0, :], extremes[1, :], extremes[2, :] = np.inf, -np.inf, 0
    power[:, :] = 0.0
    low, high, above = extremes[0, :width], extremes[1, :width], extremes[2, :width]
    s1, s2, s3, s4 = power[0, :width], power[1, :width], power[2, :width], power[3, :width]
    i, count = 0, places.size
    while i + 4 <= count:
        a, b = sequence[places[i]], sequence[places[i + 1]]
        c, d = sequence[places[i + 2]], sequence[places[i + 3]]
        four_extremes(a, b, c, d, low, high, above, threshold)
        four_powers(a, b, c, d, s1, s2, s3, s4)
        i += 4
    while i < count:
        one_token(sequence[places[i]], low, high, above, s1, s2, s3, s4, threshold)
        i += 1
    for i in range(count):
        find_bins(bits[places[i]], bins[i])
    for first in range(0, width, COUNTED):
        last = min(first + COUNTED, width)
        for i in range(count):
            count_bins(bins[i, first:last], histogram[first:last])
    for u in range(width):
        if not np.isfinite(s2[u]):
            leave_out_nonfinite(sequence, bits, places, u, extremes, power, histogram, nonfinite, threshold)


@njit(cache=True, nogil=True)
def add_sequence(extremes, power, start, sums):
    """Add what was found of a sequence to the state of the units from `start` on."""
    total, rest, minimum, maximum, above = sums[:5]
    width = extremes.shape[1]
    stop = start + width
    for p in range(4):
        add_exactly(total[p, start:stop], rest[p, start:stop], power[p])
    least, most, fires = minimum[start:stop], maximum[start:stop], above[start:stop]
    for u in range(width):
        least[u] = min(least[u], extremes[0, u])
        most[u] = max(most[u], extremes[1, u])
        fires[u] += np.int64(extremes[2, u])


@njit(cache=True, nogil=True)
def make_room(fast, slow, waiting, coming):
    """Empty the 16-bit counts of some units before they could overflow. Returns the tokens in them, with those coming."""
    if waiting + coming <= FULL:
        return waiting + coming
    for u in range(fast.shape[0]):
        for k in range(BINS):
            slow[u, k] += fast[u, k]
            fast[u, k] = 0
    return coming


@njit(cache=True, nogil=True)
def scan_batch(values, bits, batch, first, last, threshold, distinct, slots, sums, largest, smallest, pending):
    """Take the units first..last of a (B, T, U) batch into the running state of a module.

    Args:
        bits: the values' bits.
        batch: lengths, seq_ids, splits, counted, keys, places and place_starts of `Batch`.
        sums: total and rest of the power sums, minimum, maximum, above, nonfinite, fast counts, histogram (see numba_sums).
        pending: tokens in the fast counts so far.
        largest, smallest: the tops of the polarities + and - (see `winners`), without units where not recorded.
    """
    lengths, seq_ids, splits, counted, keys, places, starts = batch
    extremes, power = np.empty((3, BLOCK), F32), np.empty((4, BLOCK))
    bins = np.empty((values.shape[1], BLOCK), np.uint8)
    negated = np.empty(BLOCK, F32)
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        width = stop - start
        waiting = pending
        for b in range(values.shape[0]):
            sequence, view = values[b, : lengths[b], start:stop], bits[b, : lengths[b], start:stop]
            at = places[starts[b] : starts[b + 1]]
            histogram, nonfinite = sums[6][start:stop], sums[5][start:stop]
            waiting = make_room(histogram, sums[7][start:stop], waiting, at.size)
            scan_sequence(sequence, view, at, threshold, extremes, power, bins, histogram, nonfinite)
            add_sequence(extremes[:, :width], power[:, :width], start, sums)
            if largest[0].shape[1]:
                high = extremes[1, :width]
                keep_top(
                    sequence, counted[b], keys[b], start, high, F32(1), distinct, seq_ids[b], splits[b], slots, largest
                )
            if smallest[0].shape[1]:
                low = negated[:width]
                low[:] = -extremes[0, :width]
                keep_top(
                    sequence, counted[b], keys[b], start, low, F32(-1), distinct, seq_ids[b], splits[b], slots, smallest
                )


@njit(cache=True, nogil=True)
def add_tokens(rows, order, starts, table_rows, token_sums):
    """Add the activations of each token's occurrences to its row of the (V, U) sums.

    Args:
        rows: (N, U) activations of the N positions of a batch.
        order: positions that count, those of the same token together.
        starts: where in `order` each of the batch's distinct tokens starts; one more than distinct tokens.
        table_rows: the row of `token_sums` of each distinct token.
    """
    gathered = np.empty(rows.shape[1])
    for i in range(table_rows.size):
        gathered[:] = 0.0
        for j in range(starts[i], starts[i + 1]):
            row = rows[order[j]]
            for u in range(row.size):
                gathered[u] += (np.float64(row[u]) + GRID) - GRID
        target = token_sums[table_rows[i]]
        for u in range(gathered.size):
            target[u] += gathered[u]
