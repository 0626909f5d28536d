"""Histograms as viewers draw them: bars of one width, of the activations above 0.

The bins of the table `units` grow with the activation. Here their tokens are spread evenly over each bin.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def bars(statistics: Mapping[str, Any], count: int) -> tuple[list[float], list[float]]:
    """Heights, in tokens, and middles of `count` bars; none where the unit has no histogram or never is above 0."""
    edges, below = _above_zero(statistics)
    if len(edges) < 2:
        return [], []
    ends = np.linspace(edges[0], edges[-1], count + 1)
    return np.diff(np.interp(ends, edges, below)).tolist(), ((ends[1:] + ends[:-1]) / 2).tolist()


def percentiles(statistics: Mapping[str, Any]) -> list[float]:
    """The activations below which 1 to 100 % of those above 0 lie; none where there are none."""
    edges, below = _above_zero(statistics)
    if len(edges) < 2:
        return []
    found: list[float] = np.interp(np.arange(1, 101) / 100 * below[-1], below, edges).tolist()
    return found


def _above_zero(statistics: Mapping[str, Any]) -> tuple[Doubles, Doubles]:
    """Edges of the bins above the one about 0, and the tokens in them below each edge."""
    edges = np.array(statistics.get("histogram_edges") or [], np.float64)
    counts = np.array(statistics.get("histogram_counts") or [], np.float64)
    above = np.flatnonzero(edges > 0)
    kept, tokens = edges[above], counts[above[:-1]]
    return (kept, np.concatenate([[0.0], np.cumsum(tokens)])) if tokens.any() else (kept[:0], kept[:0])
