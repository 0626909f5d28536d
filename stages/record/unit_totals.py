"""Running totals over the partials of a range of units, and the rows that become of them: statistics and means by token.

Shapes: U units, V tokens of the token table.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.schemas import UNITS
from stages.record.sequences import POLARITIES
from stages.record.unit_statistics import (
    BINS,
    INNER_EDGES,
    ZERO_BIN,
    add,
    bin_edges,
    highest,
    moments,
    quantiles,
    trimmed,
)
from stages.settings import Record
from stages.token_means import REST, TOKEN_MEANS

Array = npt.NDArray[Any]
UNITS_AT_ONCE = 64
"""Units whose means by token are made into rows at a time."""


class UnitTotals:
    """Running totals over the partials of the units start..stop of a module."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop, self.width = start, stop, stop - start
        self.recorded: set[str] = set()
        self.counts = {name: np.zeros(self.width, np.int64) for name in ("n_tokens", "n_nonfinite", "n_above")}
        self.minimum = np.full(self.width, np.inf, np.float32)
        self.maximum = np.full(self.width, -np.inf, np.float32)
        self.power_sums = np.zeros((4, 2, self.width))
        self.histogram = np.zeros((self.width, BINS - 1), np.int64)
        self.min_count = 0
        self.token_ids = np.zeros(0, np.int64)
        self.token_counts = np.zeros(0, np.int64)
        self.token_sums = np.zeros((0, self.width))

    def add(self, units: pa.Table, tokens: pa.Table) -> None:
        """Add rows of PARTIAL_UNITS, one for each unit by rising index, and of PARTIAL_TOKENS."""
        if not np.array_equal(units["index"].to_numpy(), np.arange(self.start, self.stop)):
            raise ValueError(f"a partial does not have one row for each of the units {self.start} to {self.stop - 1}")
        self.recorded.update(*units["polarities"].unique().to_pylist())
        for name, total in self.counts.items():
            total += units[name].to_numpy()
        np.minimum(self.minimum, units["min"].to_numpy(), out=self.minimum)
        np.maximum(self.maximum, units["max"].to_numpy(), out=self.maximum)
        histogram, powers = (
            units[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(self.width, -1)
            for name in ("histogram", "power_sums")
        )
        powers = powers.reshape(self.width, 4, 2).transpose(1, 2, 0)
        self.power_sums = np.stack([add(a, b) for a, b in zip(self.power_sums, powers, strict=True)])
        self.histogram += histogram
        self.min_count = max(self.min_count, int(units["min_count"].to_numpy().max()))
        self._add_tokens(tokens)

    def _add_tokens(self, rows: pa.Table) -> None:
        """Add rows of PARTIAL_TOKENS: those of each block are about the same tokens."""
        blocks, ids = rows["index"].to_numpy(), rows["token_id"].to_numpy().astype(np.int64)
        self._cover(ids)
        counts, lists = rows["count"].to_numpy(), rows["sums"].combine_chunks()
        cuts = [*np.flatnonzero(np.diff(blocks, prepend=-1)).tolist(), len(blocks)]
        for first, last in pairwise(cuts):
            block, places = int(blocks[first]), np.searchsorted(self.token_ids, ids[first:last])
            sums = lists.slice(first, last - first).flatten().to_numpy().reshape(last - first, -1)
            low, high = max(block, self.start), min(block + sums.shape[1], self.stop)
            chosen = slice(None) if last - first == len(self.token_ids) else places  # several times faster
            self.token_sums[chosen, low - self.start : high - self.start] += sums[:, low - block : high - block]
            if first == 0:
                self.token_counts[places] += counts[:last]

    def _cover(self, ids: npt.NDArray[np.int64]) -> None:
        """Add rows for tokens that have not occurred before."""
        union = np.union1d(self.token_ids, ids)
        if len(union) > len(self.token_ids):
            places = np.searchsorted(union, self.token_ids)
            counts, sums = np.zeros(len(union), np.int64), np.zeros((len(union), self.width))
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
        finite = self.counts["n_tokens"] - self.counts["n_nonfinite"]
        found = zip(("mean", "variance", "skewness", "kurtosis"), moments(finite, self.power_sums), strict=True)
        low, high = bin_edges(self.minimum, self.maximum)
        histograms = [trimmed(self.histogram[u], low[u], high[u]) for u in range(self.width)]
        some = np.where(finite > 0, finite, np.nan)
        negative = "-" in self.recorded
        columns = {
            "module": pa.repeat(module, self.width),
            "index": np.arange(self.start, self.stop, dtype=np.int32),
            "n_tokens": finite,
            "n_nonfinite": self.counts["n_nonfinite"],
            **{name: _nullable(values) for name, values in found},
            "min": _nullable(self.minimum),
            "max": _nullable(self.maximum),
            "density": _nullable(self.counts["n_above"] / some),
            "density_negative": _nullable(self._below(-config.density_threshold), negative),
            "histogram_edges": pa.array([edges for edges, _ in histograms], pa.list_(pa.float32())),
            "histogram_counts": pa.array([counts for _, counts in histograms], pa.list_(pa.int64())),
            "quantile_boundaries": _nullable_lists(self.boundaries("+", config)),
            "quantile_boundaries_negative": _nullable_lists(-self.boundaries("-", config), negative),
            "top_tokens": self._top_tokens("+", config, token_text),
            "bottom_tokens": self._top_tokens("-", config, token_text),
            "top_tokens_min_count": np.full(self.width, max(self.min_count, config.min_token_count)),
        }
        return pa.table(columns, schema=UNITS.schema)

    def _below(self, level: float) -> npt.NDArray[np.float64]:
        """(U,) share of tokens below an activation by the histogram, without the bin about zero."""
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
            return pa.nulls(self.width, kind)
        listed = (self.token_ids != REST) & (self.token_counts >= max(config.min_token_count, 1))
        means = np.where(listed, self.token_sums.T / np.maximum(self.token_counts, 1), np.nan)  # (U, V)
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

    def token_means(self, module: str, config: Record) -> pa.Table:
        """Rows of TOKEN_MEANS, one for each unit."""
        from stages.record.exemplars import rounded

        parts = [TOKEN_MEANS.schema.empty_table()]
        used = np.flatnonzero(self.token_counts)
        ids, counts = self.token_ids[used].astype(np.int32), self.token_counts[used].astype(np.int32)
        for first in range(0, self.width, UNITS_AT_ONCE):
            sums = self.token_sums[used, first : first + UNITS_AT_ONCE].T  # (U, V)
            means = rounded((sums / counts).astype(np.float32), config.activation_bits)
            offsets = np.arange(len(means) + 1, dtype=np.int32) * np.int32(len(used))
            columns = {
                "module": pa.repeat(module, len(means)),
                "index": np.arange(self.start + first, self.start + first + len(means), dtype=np.int32),
                "token_ids": pa.ListArray.from_arrays(offsets, np.tile(ids, len(means))),
                "counts": pa.ListArray.from_arrays(offsets, np.tile(counts, len(means))),
                "means": pa.ListArray.from_arrays(offsets, _nullable(means.ravel())),
            }
            parts.append(pa.table(columns, schema=TOKEN_MEANS.schema))
        return pa.concat_tables(parts)


def _nullable_lists(values: npt.NDArray[np.float32], known: bool = True) -> pa.Array:
    """A list for each row of a matrix, null where it holds NaN, or is not known."""
    rows = [row.tolist() if known and not np.isnan(row).any() else None for row in values]
    return pa.array(rows, pa.list_(pa.float32()))


def _nullable(values: Array, known: bool = True) -> pa.Array:
    """A column in which what is not finite, or not known, is null."""
    return pa.array(values, mask=~(np.isfinite(values) & known))
