"""The record.merge stage: from the partial evidence of all parts of the corpus to the final rows of a range of units.

Partials are added one after another, so memory is bounded by the range of units. Whatever their order and however
the corpus was cut, the rows are the same: counts and sums are exact or carry twice the precision that is published,
and exemplars have a total order (see `sequences`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, numbered_shards
from pipeline.schemas import EXEMPLARS, UNITS
from pipeline.storage.tables import Tables, rows_by_module
from pipeline.subjects.module_kinds import modules_of
from stages.estimates import made_up_record
from stages.evidence import SPLITS
from stages.record.partial_tables import PARTIAL_EXEMPLARS, PARTIAL_TOKENS, PARTIAL_UNIFORM, PARTIAL_UNITS
from stages.record.partials import Partials
from stages.record.record_sizes import recording_sizes
from stages.record.unit_totals import UnitTotals
from stages.settings import Record
from stages.token_means import TOKEN_MEANS, token_texts


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the merged rows beyond the partials: what is only worked out here."""
    record = config[Record]
    return {name: getattr(record, name) for name in ("quantiles", "activation_bits", "top_tokens", "min_token_count")}


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
        Tables `units` and `token_means`, with one row for each unit, and `exemplars`.
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
        TOKEN_MEANS.name: totals.token_means(module, config),
        EXEMPLARS.name: final_rows(module, top, uniform, boundaries, config),
    }


MERGE = Stage(
    name="record.merge",
    title="merge records",
    reads=("record.scan", "corpus"),
    writes=(EXEMPLARS, UNITS, TOKEN_MEANS),
    settings=settings,
    plan=plan,
    process=process,
    splits=SPLITS,
    estimate=EstimateHints(recording_sizes, made_up_record),
    method="simulation",
    version=3,
)
