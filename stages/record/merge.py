"""The record.merge stage: partial evidence of all parts of the corpus to the final rows of a range of units.

Partials are taken in one after another, so memory is bounded by the range of units. Whatever their order and however
the corpus was cut, the rows are the same: counts and sums are exact or carry twice the precision that is published,
and exemplars have a total order (see `selection`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.config import Record, RunConfig
from pipeline.context import Context
from pipeline.evidence import SPLITS
from pipeline.schemas import CORPUS, EXEMPLARS, UNITS
from pipeline.stage import Shard, Stage
from pipeline.tables import Tables
from stages.record import exemplars
from stages.record.partials import PARTIAL_EXEMPLARS, PARTIAL_TOKENS, PARTIAL_UNITS, TOKEN_BLOCK, UNIFORM
from stages.record.units import UnitTotals

POLARITY = "+"


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
        partials: for each part of the corpus the rows of the three partial tables about these units, by table name;
            of partial_tokens, all blocks that hold one of them. Each is read once.
        token_text: the text of a token id.

    Returns:
        Tables `units`, with one row for each unit, and `exemplars`.
    """
    totals = UnitTotals(start, stop)
    top = uniform = exemplars.read(PARTIAL_EXEMPLARS.schema.empty_table(), config, POLARITY)
    for partial in partials:
        totals.add(partial[PARTIAL_UNITS.name], partial[PARTIAL_TOKENS.name])
        rows = partial[PARTIAL_EXEMPLARS.name]
        found = exemplars.read(rows.filter(pc.equal(rows["polarity"], POLARITY)), config, POLARITY)
        top = exemplars.best(top.join(found), config)
        uniform = uniform.join(exemplars.read(rows.filter(pc.equal(rows["band"], UNIFORM)), config, POLARITY))
    bands = {
        "top": top,
        "quantile": exemplars.quantile_rows(uniform, top, totals.boundaries(config), start, config),
        "random": exemplars.random_rows(uniform, config),
    }
    return {
        UNITS.name: totals.rows(module, config, token_text),
        EXEMPLARS.name: exemplars.final_rows(module, POLARITY, bands),
    }


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the merged rows beyond the partials: what is only worked out here."""
    return {"quantiles": config.record.quantiles}


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most shard_units units of one module."""
    widths = _widths(tables)
    size = config.record.shard_units
    parts = [
        {"module": module, "start": start, "stop": min(start + size, widths[module])}
        for module in config.subject.modules
        for start in range(0, widths[module], size)
    ]
    return [Shard(f"part-{number:05d}", part) for number, part in enumerate(parts)]


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Merge the partials of one range of units."""
    module, start, stop = shard.key["module"], shard.key["start"], shard.key["stop"]
    text = context.once("token_text", lambda _: token_texts(context.tables))
    partials = _partials(context.tables, module, start, stop)
    return merge(partials, module, start, stop, context.config.record, text)


def token_texts(tables: Tables) -> dict[int, str]:
    """The text of each token id of the corpus: the one at its first occurrence in seq_id order."""
    found: dict[int, str] = {}
    for batch in tables.read(CORPUS, columns=["token_ids", "tokens"]).to_batches():
        ids = batch.column("token_ids").flatten().to_pylist()
        texts = batch.column("tokens").flatten().to_pylist()
        for token_id, text in zip(ids, texts, strict=True):
            found.setdefault(token_id, text)
    return found


def _widths(tables: Tables) -> dict[str, int]:
    """Units of each module, from the first partial alone."""
    first = tables.files(PARTIAL_UNITS)[0]
    modules = pq.read_table(first, columns=["module"])["module"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in modules}


def _partials(tables: Tables, module: str, start: int, stop: int) -> Iterator[dict[str, pa.Table]]:
    """The rows about some units of each part of the corpus; row groups about other units are not read."""
    for path in tables.files(PARTIAL_UNITS):
        found = {}
        for table in (PARTIAL_UNITS, PARTIAL_EXEMPLARS, PARTIAL_TOKENS):
            first = start - start % TOKEN_BLOCK if table is PARTIAL_TOKENS else start
            index = ds.field("index")
            where = (ds.field("module") == module) & (index >= first) & (index < stop)
            found[table.name] = tables.read(table, where, shard=path.stem)
        yield found


MERGE = Stage(
    name="record.merge",
    title="merge records",
    reads=("record.scan", "corpus"),
    writes=(EXEMPLARS, UNITS),
    settings=settings,
    plan=plan,
    process=process,
    splits=SPLITS,
    method="simulation",
)
