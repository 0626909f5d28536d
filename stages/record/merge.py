"""The record.merge stage: from the partial evidence of all parts of the corpus to the final rows of a range of units.

Partials are added one after another, so memory is bounded by the range of units. Whatever their order and however
the corpus was cut, the rows are the same: counts and sums are exact or carry twice the precision that is published,
and exemplars have a total order (see `kept_sequences`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, numbered_shards
from pipeline.schemas import CORPUS, EXEMPLARS, UNITS
from pipeline.storage.tables import Tables, rows_by_module
from pipeline.subjects.module_kinds import modules_of
from stages.estimates import made_up_record
from stages.evidence import SPLITS
from stages.record.partial_tables import (
    BLOCK,
    BY_BLOCK,
    PARTIAL_EXEMPLARS,
    PARTIAL_TOKENS,
    PARTIAL_UNIFORM,
    PARTIAL_UNITS,
    PARTIALS,
)
from stages.record.record_sizes import recording_sizes
from stages.record.unit_totals import UnitTotals
from stages.settings import Record

CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


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

    totals, uniform, top = UnitTotals(start, stop), UniformExemplars(start, stop), TopExemplars(start, stop, config)
    for partial in partials:
        totals.add(partial[PARTIAL_UNITS.name], partial[PARTIAL_TOKENS.name])
        top.add(partial[PARTIAL_EXEMPLARS.name])
        uniform.add(partial[PARTIAL_UNIFORM.name])
    boundaries = {polarity: totals.boundaries(polarity, config) for polarity in totals.polarities(config)}
    return {
        UNITS.name: totals.rows(module, config, token_text),
        EXEMPLARS.name: final_rows(module, top, uniform, boundaries, config),
    }


class Partials:
    """All partial tables of a run, part by part, with their footers held in memory."""

    def __init__(self, tables: Tables) -> None:
        names = [path.stem for path in tables.files(PARTIAL_UNITS)]
        self._parts = [
            {table.name: ds.dataset(tables.file(table, name), format=CHECKED) for table in PARTIALS} for name in names
        ]

    def about(self, module: str, start: int, stop: int) -> Iterator[dict[str, pa.Table]]:
        """For each part of the corpus the rows about the units start..stop of a module, by table name.

        Row groups that hold none of them are not read.
        """
        for part in self._parts:
            yield {name: source.to_table(filter=about(name, module, start, stop)) for name, source in part.items()}


def about(table: str, module: str, start: int, stop: int) -> ds.Expression:
    """The rows of a partial table about the units start..stop, or about blocks that hold one of them."""
    first = start - start % BLOCK if table in BY_BLOCK else start
    return (ds.field("module") == module) & (ds.field("index") >= first) & (ds.field("index") < stop)


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the merged rows beyond the partials: what is only worked out here."""
    return {"quantiles": config[Record].quantiles, "activation_bits": config[Record].activation_bits}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most shard_units units of one module."""
    found = rows_by_module(tables.files(PARTIAL_UNITS)[0])
    size = config[Record].shard_units
    parts = [
        {"module": module, "start": start, "stop": min(start + size, found[module])}
        for module in modules_of(config)
        for start in range(0, found[module], size)
    ]
    return numbered_shards(parts)


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
