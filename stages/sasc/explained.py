"""The units whose n-grams were merged: shards of them, and their rows by unit."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Shard, chunks
from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables
from stages.sasc.nulls import with_nulls
from stages.sasc.sasc_tables import RESPONSES
from stages.settings import Sasc

Row = dict[str, Any]


def plan(config: RunConfig, tables: Tables) -> list[Shard]:
    """Shards of at most sasc.shard_units units of one module and polarity, in the order of the run file; null units are last."""
    rows = tables.read(RESPONSES, columns=["module", "index", "polarity"])
    units: dict[tuple[str, str], list[int]] = {}
    for module, index, polarity in zip(*(rows[name].to_pylist() for name in rows.schema.names), strict=True):
        units.setdefault((module, polarity), []).append(index)
    modules, polarities = with_nulls(config).subject.modules, [*map(str, config[Sasc].polarities)]
    parts = [
        {"module": module, "polarity": polarity, "indices": part}
        for module, polarity in sorted(units, key=lambda unit: (modules.index(unit[0]), polarities.index(unit[1])))
        for part in chunks(sorted(units[module, polarity]), config[Sasc].shard_units)
    ]
    return [Shard(f"part-{number:05d}", part) for number, part in enumerate(parts)]


def by_unit(tables: Tables, table: TableSchema, key: Mapping[str, Any]) -> dict[int, list[Row]]:
    """Rows of the units of a shard, by index."""
    found: dict[int, list[Row]] = {index: [] for index in key["indices"]}
    for row in tables.read(table, tables.is_unit(key["module"], key["indices"], key["polarity"])).to_pylist():
        found[row["index"]].append(row)
    return found


def table_of(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """A table in which NaN is null, and whatever a row does not have too."""
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in schema},
        schema=schema,
    )
