"""Statistics of units: histograms, the quantiles read from them, and power sums with the moments made of them.

The bins of the histograms are read from the bits of a float32. The sign, the exponent and the first two bits of the mantissa
choose the bin, so four bins span an octave: the upper edge of each is 1.14 to 1.25 times its lower one. There are BINS = 256
of them in rising order, the same for every unit:

    0           x <= -1536
    1 .. 126    negative, -1536 < x <= -2**-21
    127, 128    about zero, |x| < 2**-21, with and without a minus sign; one bin in the tables
    129 .. 254  positive, 2**-21 <= x < 1536
    255         x >= 1536

An edge belongs to the bin farther from zero. Of dense units, the sequences of `sequences.in_histogram` are counted, of sparse
ones all.

Power sums come out the same whatever the order of adding. A power sum over one sequence is a float64, always added up in the
order of the positions. Across sequences it is the unevaluated sum of two float64 (Knuth's two-sum, as in Ogita, Rump and
Oishi 2005), which has about 106 bits: what another order of adding changes lies far below the last bit of the float64 that is
published.

Shapes: such a pair is an array (2, ...) of the leading part and the rest; power sums are (4, 2, U), of x, x^2, x^3 and x^4.
"""

import numpy as np
import numpy.typing as npt

BINS = 256
SHIFT = 21
"""Bits of the mantissa that do not choose the bin."""
OFFSET = 423
"""`bits >> SHIFT` of the smallest magnitude outside the zero bins, less 1."""
SPLITTER = 134217729.0
"""2**27 + 1 (Dekker 1971)."""
NEGLIGIBLE = 1e-7
"""A variance below this share of the mean square drowns in rounding as far as higher moments are concerned."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


MAGNITUDES: Floats = ((np.arange(1, BINS // 2, dtype=np.int32) + OFFSET) << SHIFT).view(np.float32)
"""The 127 edges above zero, rising."""
INNER_EDGES: Floats = np.concatenate([-MAGNITUDES[::-1], MAGNITUDES])
"""(254,) edges between the 255 bins of the tables, in which the two bins about zero are one."""
ZERO_BIN = BINS // 2 - 1


def join_zero_bins(counts: Counts) -> Counts:
    """(U, 256) counts of a kernel to (U, 255) counts of the tables."""
    joined = np.delete(counts, ZERO_BIN + 1, axis=1)
    joined[:, ZERO_BIN] += counts[:, ZERO_BIN + 1]
    return joined


def bin_edges(minimum: Floats, maximum: Floats) -> tuple[Doubles, Doubles]:
    """(U, 255) lower and upper ends of the bins, within the unit's own range; outer bins end at its extremes."""
    low = np.concatenate([[-np.inf], INNER_EDGES]).astype(np.float64)
    high = np.concatenate([INNER_EDGES, [np.inf]]).astype(np.float64)
    least, most = minimum.astype(np.float64)[:, None], maximum.astype(np.float64)[:, None]
    return np.clip(low, least, most), np.clip(high, least, most)


def quantiles(counts: Counts, minimum: Floats, maximum: Floats, levels: list[float]) -> Floats:
    """Activations below which the given shares of the tokens lie.

    Inside a bin the quantile is interpolated on a logarithmic scale; in the bin about zero it is 0, or the end of the
    unit's range that is closest to 0. The error is bounded by the bin: a quarter of an octave.

    Args:
        counts: (U, 255) tokens in each bin.
        minimum, maximum: (U,) exact range of the activations.
        levels: Q shares between 0 and 1.

    Returns:
        (U, Q) activations; NaN for a unit without tokens.
    """
    some = counts.any(axis=1)
    low, high = bin_edges(np.where(some, minimum, 0), np.where(some, maximum, 0))
    cumulated = counts.cumsum(axis=1)
    total = cumulated[:, -1]
    rows = np.arange(len(counts))
    found = np.full((len(counts), len(levels)), np.nan)
    for column, level in enumerate(levels):
        target = level * total
        chosen = np.minimum((cumulated < target[:, None]).sum(axis=1), counts.shape[1] - 1)
        inside = counts[rows, chosen]
        share = (target - (cumulated[rows, chosen] - inside)) / np.maximum(inside, 1)
        found[:, column] = _between(low[rows, chosen], high[rows, chosen], share, chosen)
    found[~some] = np.nan
    return found.astype(np.float32)


def _between(low: Doubles, high: Doubles, share: Doubles, chosen: Counts) -> Doubles:
    zero = np.clip(0.0, low, high)
    outside = chosen != ZERO_BIN
    safe_low, safe_high = (np.where(outside & (end != 0), np.abs(end), 1.0) for end in (low, high))
    logarithmic = np.sign(low) * np.exp((1 - share) * np.log(safe_low) + share * np.log(safe_high))
    return np.where(outside, np.clip(logarithmic, low, high), zero)


def trimmed(counts: Counts, low: Doubles, high: Doubles) -> tuple[list[float], list[int]]:
    """Edges and counts of one unit from its lowest bin that holds a token to its highest; both empty without any."""
    used = np.flatnonzero(counts)
    if not used.size:
        return [], []
    first, last = int(used[0]), int(used[-1]) + 1
    edges = INNER_EDGES[max(first - 1, 0) : last].astype(np.float64).tolist()
    if first == 0:
        edges = [float(low[0]), *edges]
    if last == len(counts):
        edges = [*edges, float(high[-1])]
    return edges, counts[first:last].tolist()


def highest(values: npt.NDArray[np.float64], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column of the top-k finite values of each row of a matrix, by row, falling value and column."""
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    usable = np.where(np.isfinite(values), values, -np.inf)
    candidates = usable > -np.inf
    if values.shape[1] > count:
        candidates &= usable >= np.partition(usable, -count, axis=1)[:, -count, None]
    rows, columns = np.nonzero(candidates)
    order = np.lexsort([columns, -usable[rows, columns], rows])
    rows, columns = rows[order], columns[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return rows[rank < count], columns[rank < count]


def renormalised(high: Doubles, low: Doubles) -> Doubles:
    """The pair for high + low whose leading part is the rounded sum."""
    total = high + low
    rest = total - high
    return np.stack([total, (high - (total - rest)) + (low - rest)])


def add(a: Doubles, b: Doubles) -> Doubles:
    """Sum of two pairs."""
    high, low = renormalised(a[0], b[0])
    return renormalised(high, low + (a[1] + b[1]))


def multiply(a: Doubles, b: Doubles) -> Doubles:
    """Product of two pairs."""
    product = a[0] * b[0]
    a_high, a_low = _halves(a[0])
    b_high, b_low = _halves(b[0])
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return renormalised(product, error + (a[0] * b[1] + a[1] * b[0]))


def pair(numbers: Doubles) -> Doubles:
    """Plain numbers as pairs."""
    return np.stack([numbers, np.zeros_like(numbers)])


def divide(a: Doubles, b: Doubles) -> Doubles:
    """A pair over plain numbers."""
    quotient = a[0] / b
    remainder = add(a, -multiply(pair(quotient), pair(b)))
    return renormalised(quotient, remainder[0] / b)


def _halves(x: Doubles) -> tuple[Doubles, Doubles]:
    wide = SPLITTER * x
    high = wide - (wide - x)
    return high, x - high


def moments(count: npt.NDArray[np.int64], sums: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Mean, population variance, skewness and kurtosis.

    Skewness is m3 / m2**1.5 and kurtosis m4 / m2**2 with the central moments m, so a normal distribution has kurtosis
    3, as in the records of Bills et al. 2023. NaN where undefined: without tokens, and the last two also where the
    variance is 0 or negligible beside the mean square (below 1e-7 of it).

    Args:
        count: (U,) tokens.
        sums: (4, 2, U) power sums.
    """
    with np.errstate(all="ignore"):
        number = np.where(count > 0, count, np.nan).astype(np.float64)
        raw = [divide(power, number) for power in sums]
        mean = raw[0]
        squared = multiply(mean, mean)
        second = add(raw[1], -squared)

        def times(factor: float, a: Doubles, b: Doubles) -> Doubles:
            product = multiply(a, b)
            return multiply(product, pair(np.full_like(product[0], factor)))

        third = add(add(raw[2], -times(3.0, mean, raw[1])), times(2.0, squared, mean))
        fourth = add(
            add(raw[3], -times(4.0, mean, raw[2])),
            add(times(6.0, squared, raw[1]), -times(3.0, squared, squared)),
        )
        variance = np.maximum(second[0], 0.0)
        spread = np.where(variance > NEGLIGIBLE * raw[1][0], variance, np.nan)
        return mean[0], variance, third[0] / spread**1.5, fourth[0] / spread**2
