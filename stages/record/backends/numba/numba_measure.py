# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Reads the activations of a batch: extremes, power sums, histograms and token sums, in numba.

Threads split the work by sequences in `measure`, by tokens in `add_tokens`, and by units elsewhere. So no two threads write
to the same place, and no result depends on their number. The compiler vectorises the inner loops over units. Indices
into `flat` are unsigned there, because it does not vectorise an index that could be negative.

Shapes: B sequences, T tokens, U units, V tokens of the token table.
"""

import numpy as np
from numba import njit, prange

from stages.record.recorded_batch import GRID
from stages.record.unit_statistics import BINS, OFFSET, SHIFT

NEGATED, LARGEST, FIRING, NONFINITE = range(4)
"""What is found of a unit's sequence: the largest of -x, the largest of x, how many activations are above the threshold,
and how many are NaN or infinite."""
FOUND = 4
CHUNK = 512
"""Units whose running values stay in the innermost cache."""
BLOCK = 64
"""Units that a thread takes at a time; their histograms stay in the cache."""
STRIDE = BINS + 16
"""Counts from one unit's histogram to the next. With a power of two, histograms would compete for the same cache lines."""
NOWHERE = np.int32(BINS)
"""Bin of NaN and infinite activations, which is never read."""
F32, F64, I32, U64 = np.float32, np.float64, np.int32, np.uint64
LAST, ABOVE_ZERO = I32(BINS // 2 - 1), I32(BINS // 2)
MAGNITUDE, EXPONENT, SIGN = I32(0x7FFFFFFF), I32(0x7F800000), I32(31)


@njit(cache=True, nogil=True, parallel=True)
def measure(values, places, starts, threshold, found, powers):
    """Find extremes, counts and power sums of each sequence of a batch.

    Args:
        values: (B, T, U) activations.
        places, starts: `places` and `place_starts` of the batch.
        found: (B, FOUND, U) float32, written.
        powers: (B, 4, U) power sums, written.
    """
    tokens, width = values.shape[1:]
    flat = values.reshape(values.size)
    for b in prange(values.shape[0]):
        at = places[starts[b] : starts[b + 1]]
        read_sequence(flat, (b * tokens + at) * width, threshold, found[b], powers[b])
        for u in range(width):
            if not np.isfinite(powers[b, 1, u]):  # no finite float32 has an infinite square in float64
                read_finite(values[b, :, u], at, threshold, found[b, :, u], powers[b, :, u])


@njit(cache=True, nogil=True)
def read_sequence(flat, rows, threshold, found, powers):
    """Find extremes and power sums of one sequence; rows: (N,) where in `flat` the positions that count begin."""
    found[NEGATED:FIRING] = -np.inf
    found[FIRING:] = 0
    powers[:] = 0
    fours = rows.size - rows.size % 4
    for start in range(0, found.shape[1], CHUNK):
        units = slice(start, min(start + CHUNK, found.shape[1]))
        for i in range(0, fours, 4):
            four = (rows[i] + start, rows[i + 1] + start, rows[i + 2] + start, rows[i + 3] + start)
            take_rows(flat, four, threshold, found, powers, units)
        for i in range(fours, rows.size):
            take_rows(flat, (rows[i] + start,), threshold, found, powers, units)


@njit(cache=True, nogil=True)
def take_rows(flat, rows, threshold, found, powers, units):
    """Add some rows of some units. With several rows at a time, running values are loaded and stored less often."""
    take_extremes(flat, rows, threshold, found[NEGATED, units], found[LARGEST, units], found[FIRING, units])
    take_powers(flat, rows, powers[0, units], powers[1, units], powers[2, units], powers[3, units])


@njit(cache=True, nogil=True)
def take_extremes(flat, rows, threshold, negated, largest, firing):
    """Take some rows into the running extremes."""
    for u in range(negated.size):
        low, high, number = negated[u], largest[u], firing[u]
        for row in rows:
            x = flat[U64(row) + U64(u)]
            low = -x if -x > low else low
            high = x if x > high else high
            number += F32(1) if x > threshold else F32(0)
        negated[u], largest[u], firing[u] = low, high, number


@njit(cache=True, nogil=True, fastmath={"contract"})
def take_powers(flat, rows, first, second, third, fourth):
    """Take some rows into the running power sums, in the order of the rows."""
    for u in range(first.size):
        p, q, r, s = first[u], second[u], third[u], fourth[u]
        for row in rows:
            x = F64(flat[U64(row) + U64(u)])
            square = x * x
            p += x
            q += square
            r += x * square
            s += square * square
        first[u], second[u], third[u], fourth[u] = p, q, r, s


@njit(cache=True, nogil=True)
def read_finite(column, at, threshold, found, powers):
    """Read a unit's sequence (T,) at some positions, leaving out NaN and infinite activations."""
    found[NEGATED:FIRING] = -np.inf
    found[FIRING:] = 0
    powers[:] = 0
    for t in at:
        x = column[t]
        if np.isfinite(x):
            found[NEGATED], found[LARGEST] = max(found[NEGATED], -x), max(found[LARGEST], x)
            found[FIRING] += F32(1) if x > threshold else F32(0)
            square = F64(x) * F64(x)
            powers[0] += F64(x)
            powers[1] += square
            powers[2] += F64(x) * square
            powers[3] += square * square
        else:
            found[NONFINITE] += F32(1)


@njit(cache=True, nogil=True, parallel=True)
def fold(found, powers, totals, rests, minimum, maximum, above, nonfinite):
    """Add what `measure` found to the running state of U units.

    Args:
        totals, rests: (4, U) leading parts and rests of the power sums, see `unit_statistics`.
    """
    width = minimum.size
    for block in prange(-(-width // BLOCK)):
        part = slice(block * BLOCK, min((block + 1) * BLOCK, width))
        for b in range(found.shape[0]):
            for p in range(4):
                add_exactly(totals[p, part], rests[p, part], powers[b, p, part])
            for u in range(part.start, part.stop):
                minimum[u] = min(minimum[u], -found[b, NEGATED, u])
                maximum[u] = max(maximum[u], found[b, LARGEST, u])
                above[u] += np.int64(found[b, FIRING, u])
                nonfinite[u] += np.int64(found[b, NONFINITE, u])


@njit(cache=True, nogil=True)
def add_exactly(total, rest, value):
    """Add float64 to running pairs, by two-sum (see `unit_statistics`)."""
    for u in range(total.size):
        new = total[u] + value[u]
        back = new - total[u]
        rest[u] += (total[u] - (new - back)) + (value[u] - back)
        total[u] = new


@njit(cache=True, nogil=True, parallel=True)
def count_bins(bits, places, starts, sequences, histogram):
    """Count some sequences of a batch in the (U, STRIDE) histograms.

    Args:
        bits: (B, T, U) activations, their bits as int32.
        sequences: which of the B are counted.
    """
    width = histogram.shape[0]
    for block in prange(-(-width // BLOCK)):
        first, last = block * BLOCK, min((block + 1) * BLOCK, width)
        bins = np.empty(BLOCK, np.int32)
        for b in sequences:
            for t in places[starts[b] : starts[b + 1]]:
                row = bits[b, t, first:last]
                for u in range(row.size):
                    bins[u] = histogram_bin(row[u])
                for u in range(row.size):
                    histogram[first + u, bins[u]] += I32(1)


@njit(cache=True, nogil=True)
def histogram_bin(bits):
    """The histogram's bin of a float32 by its bits (see `unit_statistics`)."""
    magnitude = I32(I32((bits & MAGNITUDE) >> I32(SHIFT)) - I32(OFFSET))
    magnitude = magnitude if magnitude > I32(0) else I32(0)
    magnitude = magnitude if magnitude < LAST else LAST
    found = I32(ABOVE_ZERO + I32(magnitude ^ I32(bits >> SIGN)))
    return found if bits & EXPONENT != EXPONENT else NOWHERE


@njit(cache=True, nogil=True, parallel=True)
def add_tokens(rows, positions, starts, table_rows, token_sums):
    """Add the activations of each token's occurrences to its row of the (V, U) sums.

    Args:
        rows: (B * T, U) activations.
        positions, starts, table_rows: `positions`, `starts` and `token_rows` of the batch.
    """
    for i in prange(table_rows.size):
        for j in range(starts[i], starts[i + 1]):
            add_on_grid(rows[positions[j]], token_sums[table_rows[i]])


@njit(cache=True, nogil=True)
def add_on_grid(row, sums):
    """Add a row of activations, rounded so that no addition rounds (see `recorded_batch.GRID`)."""
    for u in range(sums.size):
        sums[u] += (F64(row[u]) + GRID) - GRID
