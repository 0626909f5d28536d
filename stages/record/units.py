"""Statistics of a range of units: the sum of the partials, and the rows of the final table."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import Record
from pipeline.schemas import UNITS
from stages.record import moments
from stages.record.histogram import BINS, bin_edges, quantiles, trimmed

Array = npt.NDArray[Any]
COUNTS = ("n_tokens", "n_nonfinite", "n_above")


class UnitTotals:
    """Running totals over the partials of the units start..stop of a module."""

    def __init__(self, start: int, stop: int) -> None:
        width = stop - start
        self.start, self.stop = start, stop
        self.counts = {name: np.zeros(width, np.int64) for name in COUNTS}
        self.minimum = np.full(width, np.inf, np.float32)
        self.maximum = np.full(width, -np.inf, np.float32)
        self.power_sums = np.zeros((4, 2, width))
        self.histogram = np.zeros((width, BINS - 1), np.int64)
        self.min_count = 0
        self.token_ids = np.zeros(0, np.int64)
        self.token_counts = np.zeros(0, np.int64)
        self.token_sums = np.zeros((0, width))

    def add(self, units: pa.Table, tokens: pa.Table) -> None:
        """Add rows of PARTIAL_UNITS, one for each unit by rising index, and of PARTIAL_TOKENS."""
        if units["index"].to_pylist() != list(range(self.start, self.stop)):
            raise ValueError(f"a partial does not have one row for each of the units {self.start} to {self.stop - 1}")
        width = self.stop - self.start
        for name, total in self.counts.items():
            total += units[name].to_numpy()
        np.minimum(self.minimum, units["min"].to_numpy(), out=self.minimum)
        np.maximum(self.maximum, units["max"].to_numpy(), out=self.maximum)
        powers = _matrix(units["power_sums"], width).reshape(width, 4, 2).transpose(1, 2, 0)
        self.power_sums = np.stack([moments.add(a, b) for a, b in zip(self.power_sums, powers, strict=True)])
        self.histogram += _matrix(units["histogram"], width)
        self.min_count = max(self.min_count, *units["min_count"].to_pylist())
        self._add_tokens(tokens)

    def _add_tokens(self, rows: pa.Table) -> None:
        blocks = rows["index"].to_numpy()
        ids = rows["token_id"].to_numpy().astype(np.int64)
        self._cover(ids)
        for block in np.unique(blocks):
            part = rows.filter(pa.array(blocks == block))
            places = np.searchsorted(self.token_ids, ids[blocks == block])
            sums = _matrix(part["sums"], len(part))
            low, high = max(int(block), self.start), min(int(block) + sums.shape[1], self.stop)
            self.token_sums[places, low - self.start : high - self.start] += sums[:, low - block : high - block]
            if block == blocks.min():
                self.token_counts[places] += part["count"].to_numpy()

    def _cover(self, ids: npt.NDArray[np.int64]) -> None:
        """Make room for tokens that have not occurred before."""
        union = np.union1d(self.token_ids, ids)
        if len(union) == len(self.token_ids):
            return
        places = np.searchsorted(union, self.token_ids)
        counts, sums = np.zeros(len(union), np.int64), np.zeros((len(union), self.stop - self.start))
        counts[places], sums[places] = self.token_counts, self.token_sums
        self.token_ids, self.token_counts, self.token_sums = union, counts, sums

    def boundaries(self, config: Record) -> npt.NDArray[np.float32]:
        """(U, Q) activations at the configured quantiles."""
        return quantiles(self.histogram, self.minimum, self.maximum, config.quantiles)

    def rows(self, module: str, config: Record, token_text: Mapping[int, str]) -> pa.Table:
        """Rows of UNITS, one for each unit."""
        width = self.stop - self.start
        finite = self.counts["n_tokens"] - self.counts["n_nonfinite"]
        mean, variance, skewness, kurtosis = moments.moments(finite, self.power_sums)
        low, high = bin_edges(self.minimum, self.maximum)
        histograms = [trimmed(self.histogram[u], low[u], high[u]) for u in range(width)]
        with np.errstate(invalid="ignore"):
            density = self.counts["n_above"] / np.where(finite > 0, finite, np.nan)
        columns = {
            "module": pa.repeat(module, width),
            "index": np.arange(self.start, self.stop, dtype=np.int32),
            "n_tokens": finite,
            "n_nonfinite": self.counts["n_nonfinite"],
            "mean": _nullable(mean),
            "variance": _nullable(variance),
            "skewness": _nullable(skewness),
            "kurtosis": _nullable(kurtosis),
            "min": _nullable(self.minimum),
            "max": _nullable(self.maximum),
            "density": _nullable(density),
            "histogram_edges": pa.array([edges for edges, _ in histograms], pa.list_(pa.float32())),
            "histogram_counts": pa.array([counts for _, counts in histograms], pa.list_(pa.int64())),
            "quantile_boundaries": pa.array(self._boundary_lists(config), pa.list_(pa.float32())),
            "top_tokens": self._top_tokens(config, token_text),
            "top_tokens_min_count": np.full(width, self.min_count),
        }
        return pa.table(columns, schema=UNITS.schema)

    def _boundary_lists(self, config: Record) -> list[list[float] | None]:
        return [None if np.isnan(row).any() else row.tolist() for row in self.boundaries(config)]

    def _top_tokens(self, config: Record, token_text: Mapping[int, str]) -> pa.Array:
        """The tokens of highest mean activation of each unit, by falling mean, then by rising id."""
        kind = UNITS.schema.field("top_tokens").type
        lists = []
        for u in range(self.stop - self.start):
            means = np.full(len(self.token_ids), np.nan)
            np.divide(self.token_sums[:, u], self.token_counts, out=means, where=self.token_counts > 0)
            lists.append([self._token(row, means[row], token_text) for row in highest(means, config.top_tokens)])
        return pa.array(lists, kind)

    def _token(self, row: int, mean: float, token_text: Mapping[int, str]) -> dict[str, Any]:
        token_id = int(self.token_ids[row])
        count = int(self.token_counts[row])
        return {"token_id": token_id, "token": token_text.get(token_id), "mean_activation": mean, "count": count}


def highest(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """Positions of the largest finite values, the largest first, the first position first among equals."""
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) > count > 0:
        least = np.partition(values[finite], len(finite) - count)[len(finite) - count]
        finite = finite[values[finite] >= least]
    return finite[np.argsort(-values[finite], kind="stable")][:count].astype(np.int64)


def _matrix(column: pa.ChunkedArray, rows: int) -> Array:
    """The lists of a column, all of the same length, as rows."""
    flat = pa.concat_arrays(column.chunks).flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(rows, -1)


def _nullable(values: Array) -> pa.Array:
    """A column in which what is not finite is null."""
    return pa.array(values, mask=~np.isfinite(values))
