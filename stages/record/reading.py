# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Reads the activations of one sequence, of which it finds each unit's extremes and power sums, in numba.

Rows are read whole, one after the other as they lie in memory, because a processor fetches those by itself, and eight rows at a
time, so that the running values are loaded and stored an eighth as often.

Loops over units are vectorised. For that, activations and running values are one-dimensional arrays with unsigned indices: an index
that the compiler cannot prove to be positive keeps it from that. Power sums are added up in the order of the positions, in float64.

NaN and infinite activations are found by the sum of squares, which no finite float32 makes infinite; only then is the sequence of
that one unit gone through again.
"""

import numpy as np
from numba import njit

SUB = 256
"""Units whose running values stay in the innermost cache."""
WIDE = 8 * SUB
"""Units of a row that are read in one go."""
F32, F64, U64 = np.float32, np.float64, np.uint64
NEGATED, LARGEST, FIRING = 0, 1, 2
"""What is found of a unit's sequence: the largest of -x, the largest of x, and how many activations are above the threshold."""


@njit(cache=True, nogil=True, fastmath={"contract"})
def take_rows(flat, rows, units, width, extremes, power, start, threshold):
    """Take some rows of activations into the running values of a sequence.

    Args:
        flat: the activations of a batch.
        rows: a tuple of where in `flat` the first unit lies in each row.
        units: number of units.
        width: U, the units of the module.
        extremes: (3 * U,) least and largest activation, and how many are above the threshold.
        power: (4 * U,) power sums.
        start: the first unit.
    """
    for u in range(units):
        i = start + u
        least, most, fires = extremes[i], extremes[i + width], extremes[i + width + width]
        for row in rows:
            x = flat[row + u]
            most = x if x > most else most
            least = x if x < least else least
            fires += F32(1) if x > threshold else F32(0)
        extremes[i], extremes[i + width], extremes[i + width + width] = least, most, fires
    for u in range(units):
        i = start + u
        j = i + width + width
        first, second, third, fourth = power[i], power[i + width], power[j], power[j + width]
        for row in rows:
            x = F64(flat[row + u])
            square = x * x
            first += x
            second += square
            third += x * square
            fourth += square * square
        power[i], power[i + width], power[j], power[j + width] = first, second, third, fourth


@njit(cache=True, nogil=True)
def four(at, done, origin, width):
    """Where four rows begin in the flat activations."""
    return (
        origin + U64(at[done]) * width,
        origin + U64(at[done + 1]) * width,
        origin + U64(at[done + 2]) * width,
        origin + U64(at[done + 3]) * width,
    )


@njit(cache=True, nogil=True)
def read_sequence(flat, origin, at, extremes, power, threshold):
    """Find extremes (3, U) and power sums (4, U) of one sequence.

    Args:
        flat: the activations of a batch.
        origin: where in them the sequence begins.
        at: the positions that count.
    """
    extremes[0], extremes[1], extremes[2] = np.inf, -np.inf, 0
    power[:] = 0.0
    low, width = extremes[0], U64(extremes.shape[1])
    sums, ends = power.reshape(power.size), extremes.reshape(extremes.size)
    for wide in range(0, low.size, WIDE):
        done = 0
        while done < at.size:
            left = at.size - done
            for start in range(wide, min(wide + WIDE, low.size), SUB):
                units, first, begin = U64(min(SUB, low.size - start)), U64(start), U64(origin + start)
                if left >= 8:
                    rows = four(at, done, begin, width) + four(at, done + 4, begin, width)
                    take_rows(flat, rows, units, width, ends, sums, first, threshold)
                elif left >= 4:
                    take_rows(flat, four(at, done, begin, width), units, width, ends, sums, first, threshold)
                else:
                    row = (begin + U64(at[done]) * width,)
                    take_rows(flat, row, units, width, ends, sums, first, threshold)
            done += 8 if left >= 8 else 4 if left >= 4 else 1
    for u in range(low.size):
        low[u] = -low[u]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def all_finite(numbers):
    total = 0.0
    for number in numbers:
        total += number - number
    return total == 0.0


@njit(cache=True, nogil=True)
def leave_out_nonfinite(sequence, at, u, extremes, power, threshold):
    """Read unit u of a (T, U) sequence again, without what is not finite. Returns how many of the positions `at` that are."""
    least, most, fires, left_out = F32(np.inf), F32(-np.inf), F32(0), 0
    power[:, u] = 0.0
    for t in at:
        x = sequence[t, u]
        if not np.isfinite(x):
            left_out += 1
            continue
        least, most = min(least, x), max(most, x)
        fires += F32(1) if x > threshold else F32(0)
        square = F64(x) * F64(x)
        power[0, u] += F64(x)
        power[1, u] += square
        power[2, u] += F64(x) * square
        power[3, u] += square * square
    extremes[NEGATED, u], extremes[LARGEST, u], extremes[FIRING, u] = -least, most, fires
    return left_out
