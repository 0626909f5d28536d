"""Histograms whose bins are read from the bits of a float32, and the quantiles read from them.

The sign, the exponent and the first two bits of the mantissa choose the bin, so four bins span an octave: the upper edge
of each is 1.14 to 1.25 times its lower one. There are BINS = 256 of them in rising order, the same for every unit:

    0           x <= -1536
    1 .. 126    negative, -1536 < x <= -2**-21
    127, 128    about zero, |x| < 2**-21, with and without a minus sign; one bin in the tables
    129 .. 254  positive, 2**-21 <= x < 1536
    255         x >= 1536

An edge belongs to the bin farther from zero. Of dense units, the sequences of
`kept_sequences.in_histogram` are counted, of sparse ones all.
"""

import numpy as np
import numpy.typing as npt

BINS = 256
SHIFT = 21
"""Bits of the mantissa that do not choose the bin."""
OFFSET = 423
"""`bits >> SHIFT` of the smallest magnitude outside the zero bins, less 1."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def _magnitudes() -> Floats:
    """The 127 edges above zero, rising."""
    return ((np.arange(1, BINS // 2, dtype=np.int32) + OFFSET) << SHIFT).view(np.float32)


MAGNITUDES = _magnitudes()
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
