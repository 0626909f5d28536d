"""Statistics of a range of units: the sum of the partials, and the rows of the final table."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import UNITS
from stages.record import moments
from stages.record.histogram import BINS, INNER_EDGES, ZERO_BIN, bin_edges, quantiles, trimmed
from stages.record.kept_sequences import POLARITIES
from stages.settings import Record

Array = npt.NDArray[Any]
COUNTS = ("n_tokens", "n_nonfinite", "n_above")


class UnitTotals:
    """Running totals over the partials of the units start..stop of a module."""

    def __init__(self, start: int, stop: int) -> None:
        width = stop - start
        self.start, self.stop = start, stop
        self.recorded: set[str] = set()
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
        if not np.array_equal(units["index"].to_numpy(), np.arange(self.start, self.stop)):
            raise ValueError(f"a partial does not have one row for each of the units {self.start} to {self.stop - 1}")
        width = self.stop - self.start
        self.recorded.update(*units["polarities"].unique().to_pylist())
        for name, total in self.counts.items():
            total += units[name].to_numpy()
        np.minimum(self.minimum, units["min"].to_numpy(), out=self.minimum)
        np.maximum(self.maximum, units["max"].to_numpy(), out=self.maximum)
        powers = _matrix(units["power_sums"], width).reshape(width, 4, 2).transpose(1, 2, 0)
        self.power_sums = np.stack([moments.add(a, b) for a, b in zip(self.power_sums, powers, strict=True)])
        self.histogram += _matrix(units["histogram"], width)
        self.min_count = max(self.min_count, int(units["min_count"].to_numpy().max()))
        self._add_tokens(tokens)

    def _add_tokens(self, rows: pa.Table) -> None:
        blocks, ids = rows["index"].to_numpy(), rows["token_id"].to_numpy().astype(np.int64)
        self._cover(ids)
        counts, lists = rows["count"].to_numpy(), rows["sums"].combine_chunks()
        cuts = [*np.flatnonzero(np.diff(blocks, prepend=-1)).tolist(), len(blocks)]
        for first, last in pairwise(cuts):
            part = slice(first, last)
            block = int(blocks[first])
            sums = lists.slice(first, last - first).flatten().to_numpy().reshape(last - first, -1)
            places = np.searchsorted(self.token_ids, ids[part])
            chosen = slice(None) if last - first == len(self.token_ids) else places
            low, high = max(block, self.start), min(block + sums.shape[1], self.stop)
            self.token_sums[chosen, low - self.start : high - self.start] += sums[:, low - block : high - block]
            if first == 0:
                self.token_counts[places] += counts[part]

    def _cover(self, ids: npt.NDArray[np.int64]) -> None:
        """Add rows for tokens that have not occurred before."""
        union = np.union1d(self.token_ids, ids)
        if len(union) == len(self.token_ids):
            return
        places = np.searchsorted(union, self.token_ids)
        counts, sums = np.zeros(len(union), np.int64), np.zeros((len(union), self.stop - self.start))
        counts[places], sums[places] = self.token_counts, self.token_sums
        self.token_ids, self.token_counts, self.token_sums = union, counts, sums

    def polarities(self, config: Record) -> list[str]:
        """The polarities that were asked for and recorded, '+' first."""
        return [polarity for polarity in POLARITIES if polarity in self.recorded and polarity in config.polarities]

    def boundaries(self, polarity: str, config: Record) -> npt.NDArray[np.float32]:
        """(U, Q) quantiles of x, or of -x for '-', at the configured levels."""
        if polarity == "+":
            return quantiles(self.histogram, self.minimum, self.maximum, config.quantiles)
        return -quantiles(self.histogram, self.minimum, self.maximum, [1 - level for level in config.quantiles])

    def rows(self, module: str, config: Record, token_text: Mapping[int, str]) -> pa.Table:
        """Rows of UNITS, one for each unit."""
        width = self.stop - self.start
        finite = self.counts["n_tokens"] - self.counts["n_nonfinite"]
        mean, variance, skewness, kurtosis = moments.moments(finite, self.power_sums)
        low, high = bin_edges(self.minimum, self.maximum)
        histograms = [trimmed(self.histogram[u], low[u], high[u]) for u in range(width)]
        some = np.where(finite > 0, finite, np.nan)
        below = -self.boundaries("-", config) if "-" in self.recorded else np.full((width, 1), np.nan, np.float32)
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
            "density": _nullable(self.counts["n_above"] / some),
            "density_negative": _nullable(self._below(-config.density_threshold)),
            "histogram_edges": pa.array([edges for edges, _ in histograms], pa.list_(pa.float32())),
            "histogram_counts": pa.array([counts for _, counts in histograms], pa.list_(pa.int64())),
            "quantile_boundaries": _nullable_lists(self.boundaries("+", config)),
            "quantile_boundaries_negative": _nullable_lists(below),
            "top_tokens": self._top_tokens("+", config, token_text),
            "bottom_tokens": self._top_tokens("-", config, token_text),
            "top_tokens_min_count": np.full(width, self.min_count),
        }
        return pa.table(columns, schema=UNITS.schema)

    def _below(self, level: float) -> npt.NDArray[np.float64]:
        """(U,) share of tokens below an activation by the histogram, without the bin about zero; NaN without '-'."""
        if "-" not in self.recorded:
            return np.full(self.stop - self.start, np.nan)
        chosen = int(np.searchsorted(INNER_EDGES, np.float32(level), side="right"))
        below = self.histogram[:, :chosen].sum(axis=1).astype(np.float64)
        if chosen != ZERO_BIN:
            low, high = (np.abs(edges[:, chosen]) for edges in bin_edges(self.minimum, self.maximum))
            with np.errstate(divide="ignore", invalid="ignore"):
                share = (np.log(abs(level)) - np.log(low)) / (np.log(high) - np.log(low))
            below += np.where(np.isfinite(share), np.clip(share, 0, 1), 0) * self.histogram[:, chosen]
        total = self.histogram.sum(axis=1)
        return below / np.where(total > 0, total, np.nan)

    def _top_tokens(self, polarity: str, config: Record, token_text: Mapping[int, str]) -> pa.Array:
        """The tokens of highest mean activation of each unit, in the polarity, by falling mean, then by rising id."""
        kind = UNITS.schema.field("top_tokens").type
        if polarity not in self.recorded:
            return pa.nulls(self.stop - self.start, kind)
        seen = np.maximum(self.token_counts, 1)
        means = np.where(self.token_counts > 0, self.token_sums.T / seen, np.nan)  # (U, V)
        units, places = highest(means if polarity == "+" else -means, config.top_tokens)
        texts = pa.array([token_text.get(token_id) for token_id in self.token_ids.tolist()], pa.string())
        columns = {
            "token_id": pa.array(self.token_ids[places].astype(np.int32)),
            "token": texts.take(pa.array(places)),
            "mean_activation": pa.array(means[units, places].astype(np.float32)),
            "count": pa.array(self.token_counts[places]),
        }
        offsets = np.searchsorted(units, np.arange(len(means) + 1)).astype(np.int32)
        entries = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
        return pa.ListArray.from_arrays(offsets, entries)


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


def _nullable_lists(values: npt.NDArray[np.float32]) -> pa.Array:
    """A list for each row of a matrix, null where it holds NaN."""
    return pa.array([None if np.isnan(row).any() else row.tolist() for row in values], pa.list_(pa.float32()))


def _matrix(column: pa.ChunkedArray, rows: int) -> Array:
    """The lists of a column, all of the same length, as rows."""
    flat = pa.concat_arrays(column.chunks).flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(rows, -1)


def _nullable(values: Array) -> pa.Array:
    """A column in which what is not finite is null."""
    return pa.array(values, mask=~np.isfinite(values))
