"""The record.merge stage: from the partial evidence of all parts of the corpus to the final rows of a range of units.

Partials are added one after another, so memory is bounded by the range of units. Whatever their order and however
the corpus was cut, the rows are the same: counts and sums are exact or carry twice the precision that is published,
and exemplars have a total order (see `sequences`).
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, numbered_shards
from pipeline.schemas import CORPUS, EXEMPLARS, UNITS
from pipeline.storage.tables import Tables, rows_by_module
from pipeline.subjects.module_kinds import modules_of
from stages.estimates import made_up_record
from stages.evidence import SPLITS
from stages.record.partial_tables import PARTIAL_EXEMPLARS, PARTIAL_TOKENS, PARTIAL_UNIFORM, PARTIAL_UNITS
from stages.record.partials import Partials
from stages.record.record_sizes import recording_sizes
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

Array = npt.NDArray[Any]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the merged rows beyond the partials: what is only worked out here."""
    return {"quantiles": config[Record].quantiles, "activation_bits": config[Record].activation_bits}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most shard_units units of one module."""
    found = rows_by_module(tables.files(PARTIAL_UNITS)[0])
    size = config[Record].shard_units
    return numbered_shards(
        {"module": module, "start": start, "stop": min(start + size, found[module])}
        for module in modules_of(config)
        for start in range(0, found[module], size)
    )


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Merge the partials of one range of units."""
    module, start, stop = shard.key["module"], shard.key["start"], shard.key["stop"]
    text = context.once("token_text", lambda _: token_texts(context.tables))
    partials = context.once("partials", lambda _: Partials(context.tables))
    return merge(partials.about(module, start, stop), module, start, stop, context.config[Record], text)


def token_texts(tables: Tables) -> dict[int, str]:
    """The text of each token id of the corpus: the one at its first occurrence in seq_id order."""
    found: dict[int, str] = {}
    for batch in tables.batches(CORPUS, columns=["token_ids", "tokens"]):
        ids, first = np.unique(batch.column("token_ids").flatten().to_numpy(), return_index=True)
        texts = batch.column("tokens").flatten().take(pa.array(first)).to_pylist()
        for token_id, text in zip(ids.tolist(), texts, strict=True):
            found.setdefault(token_id, text)
    return found


def merge(
    partials: Iterable[Mapping[str, pa.Table]],
    module: str,
    start: int,
    stop: int,
    config: Record,
    token_text: Mapping[int, str],
) -> dict[str, pa.Table]:
    """The final rows of the units start..stop of a module.

    Args:
        partials: for each part of the corpus the rows of the four partial tables about these units, by table name;
            of partial_tokens and partial_uniform, all blocks that hold one of them. Each is read once.
        token_text: the text of a token id.

    Returns:
        Tables `units`, with one row for each unit, and `exemplars`.
    """
    from stages.record.exemplars import TopExemplars, UniformExemplars, final_rows

    totals, uniform, top = UnitTotals(start, stop), UniformExemplars(start, stop), TopExemplars(start, config)
    for partial in partials:
        totals.add(partial[PARTIAL_UNITS.name], partial[PARTIAL_TOKENS.name])
        top.add(partial[PARTIAL_EXEMPLARS.name])
        uniform.add(partial[PARTIAL_UNIFORM.name])
    boundaries = {polarity: totals.boundaries(polarity, config) for polarity in totals.polarities(config)}
    return {
        UNITS.name: totals.rows(module, config, token_text),
        EXEMPLARS.name: final_rows(module, top, uniform, boundaries, config),
    }


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
            "top_tokens_min_count": np.full(self.width, self.min_count),
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


def _nullable_lists(values: npt.NDArray[np.float32], known: bool = True) -> pa.Array:
    """A list for each row of a matrix, null where it holds NaN, or is not known."""
    rows = [row.tolist() if known and not np.isnan(row).any() else None for row in values]
    return pa.array(rows, pa.list_(pa.float32()))


def _nullable(values: Array, known: bool = True) -> pa.Array:
    """A column in which what is not finite, or not known, is null."""
    return pa.array(values, mask=~(np.isfinite(values) & known))


MERGE = Stage(
    name="record.merge",
    title="merge records",
    reads=("record.scan", "corpus"),
    writes=(EXEMPLARS, UNITS),
    settings=settings,
    plan=plan,
    process=process,
    splits=SPLITS,
    estimate=EstimateHints(recording_sizes, made_up_record),
    method="simulation",
    version=2,
)
