# mypy: disable-error-code="no-untyped-def"
"""One pass over a batch of activations, in numba.

The activations lie in memory as (B, T, U). The pass goes over blocks of BLOCK units; for each block and each sequence
the (T, BLOCK) piece is read once from memory: four tokens at a time, so that the running extremes and power sums are
loaded and stored a quarter as often. The histogram's bins, a byte each, are noted on the way and counted afterwards.
Loops over units are vectorised: they are written over equally indexed one-dimensional views, because an index that
the compiler cannot prove to be positive keeps it from that.

NaN and infinite activations are found by the sum of squares, which no finite float32 makes infinite; only then is the
sequence of that one unit gone through again.
"""

import numpy as np
from numba import njit

from stages.record.histogram import BINS, OFFSET, SHIFT
from stages.record.tokens import GRID_BITS

BLOCK = 1024
"""Units whose activations on a sequence (256 KiB for 64 tokens) stay in the cache while they are looked at."""
COUNTED = 128
"""Units whose histograms stay in the innermost cache while a sequence is counted."""
STRIDE = BINS + 16
"""Numbers from one unit's histogram to the next: no power of two, so that equal bins do not share a cache line's place,
nor a store seem to hit the load of another unit. It makes counting almost twice as fast."""
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
def four_tokens(a, b, c, d, low, high, above, s1, s2, s3, s4, threshold):
    """Take four rows of U activations into the running values of a sequence."""
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
    for u in range(a.size):
        w, x, y, z = np.float64(a[u]), np.float64(b[u]), np.float64(c[u]), np.float64(d[u])
        ww, xx, yy, zz = w * w, x * x, y * y, z * z
        s1[u] += (w + x) + (y + z)
        s2[u] += (ww + xx) + (yy + zz)
        s3[u] += (w * ww + x * xx) + (y * yy + z * zz)
        s4[u] += (ww * ww + xx * xx) + (yy * yy + zz * zz)


@njit(cache=True, nogil=True)
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
        histogram[u, bins[u]] += I32(1)


@njit(cache=True, nogil=True)
def leave_out_nonfinite(column, bits, u, extremes, power, histogram, nonfinite, threshold):
    """Do one unit's sequence again, without its NaN and infinite activations. Returns how often it fires."""
    extremes[0, u], extremes[1, u], fires = np.inf, -np.inf, F32(0)
    power[:, u] = 0.0
    one_bits = np.empty(1, I32)
    one_bin = np.empty(1, np.uint8)
    for t in range(column.size):
        if np.isfinite(column[t]):
            x = np.float64(column[t])
            extremes[0, u] = min(extremes[0, u], column[t])
            extremes[1, u] = max(extremes[1, u], column[t])
            fires += F32(1) if column[t] > threshold else F32(0)
            power[0, u] += x
            power[1, u] += x * x
            power[2, u] += x * (x * x)
            power[3, u] += (x * x) * (x * x)
        else:
            nonfinite[u] += 1
            one_bits[0] = bits[t]
            find_bins(one_bits, one_bin)
            histogram[u, one_bin[0]] -= 1
    extremes[2, u] = fires


@njit(cache=True, nogil=True)
def add_exactly(total, rest, value):
    """Add U float64 to the running pairs `total` + `rest` (two-sum)."""
    for u in range(value.size):
        new = total[u] + value[u]
        back = new - total[u]
        rest[u] += (total[u] - (new - back)) + (value[u] - back)
        total[u] = new


@njit(cache=True, nogil=True)
def keep_top(sequence, start, high, seq_id, s, slots, top):
    """Insert a (T, ...) sequence of split s where it beats the worst kept one of the units from `start` on."""
    worst_value, worst_seq, worst_slot, values, seq_ids, vectors = top
    for i in range(high.size):
        u, value = start + i, high[i]
        if value < worst_value[s, u] or value == -np.inf or (value == worst_value[s, u] and seq_id > worst_seq[s, u]):
            continue
        slot = worst_slot[s, u]
        values[u, slot] = value
        seq_ids[u, slot] = seq_id
        for t in range(sequence.shape[0]):
            vectors[u, slot, t] = sequence[t, u]
        worst = slots[s]
        for k in range(slots[s] + 1, slots[s + 1]):
            lower = values[u, k] < values[u, worst]
            if lower or (values[u, k] == values[u, worst] and seq_ids[u, k] > seq_ids[u, worst]):
                worst = k
        worst_slot[s, u] = worst
        worst_value[s, u] = values[u, worst]
        worst_seq[s, u] = seq_ids[u, worst]


@njit(cache=True, nogil=True)
def scan_sequence(sequence, bits, start, width, skip, threshold, extremes, power, bins, histogram, nonfinite):
    """Statistics of units start..start+width of a (T, ...) sequence, and its counts in their histograms."""
    length, stop = sequence.shape[0], start + width
    extremes[0, :], extremes[1, :], extremes[2, :] = np.inf, -np.inf, 0
    power[:, :] = 0.0
    low, high, above = extremes[0, :width], extremes[1, :width], extremes[2, :width]
    s1, s2, s3, s4 = power[0, :width], power[1, :width], power[2, :width], power[3, :width]
    t = skip
    while t + 4 <= length:
        a, b = sequence[t, start:stop], sequence[t + 1, start:stop]
        c, d = sequence[t + 2, start:stop], sequence[t + 3, start:stop]
        four_tokens(a, b, c, d, low, high, above, s1, s2, s3, s4, threshold)
        for near in range(t, t + 4):
            find_bins(bits[near, start:stop], bins[near])
        t += 4
    while t < length:
        one_token(sequence[t, start:stop], low, high, above, s1, s2, s3, s4, threshold)
        find_bins(bits[t, start:stop], bins[t])
        t += 1
    for first in range(0, width, COUNTED):
        last = min(first + COUNTED, width)
        for t in range(skip, length):
            count_bins(bins[t, first:last], histogram[first:last])
    for u in range(width):
        if not np.isfinite(s2[u]):
            column, column_bits = sequence[skip:, start + u], bits[skip:, start + u]
            leave_out_nonfinite(column, column_bits, u, extremes, power, histogram, nonfinite, threshold)


@njit(cache=True, nogil=True)
def scan_batch(activations, bits, lengths, seq_ids, splits, slots, skip, threshold, sums, top):
    """Take a (B, T, U) batch into the running state of a module; `sums` and `top` as in numba_sums."""
    total, rest, minimum, maximum, above, nonfinite, histogram = sums
    extremes, power = np.empty((3, BLOCK), F32), np.empty((4, BLOCK))
    bins = np.empty((activations.shape[1], BLOCK), np.uint8)
    for start in range(0, activations.shape[2], BLOCK):
        stop = min(start + BLOCK, activations.shape[2])
        width = stop - start
        for b in range(activations.shape[0]):
            sequence, view = activations[b, : lengths[b]], bits[b, : lengths[b]]
            scan_sequence(
                sequence,
                view,
                start,
                width,
                skip,
                threshold,
                extremes,
                power,
                bins,
                histogram[start:stop],
                nonfinite[start:stop],
            )
            for p in range(4):
                add_exactly(total[p, start:stop], rest[p, start:stop], power[p, :width])
            for u in range(width):
                minimum[start + u] = min(minimum[start + u], extremes[0, u])
                maximum[start + u] = max(maximum[start + u], extremes[1, u])
                above[start + u] += np.int64(extremes[2, u])
            keep_top(sequence, start, extremes[1, :width], seq_ids[b], splits[b], slots, top)


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
