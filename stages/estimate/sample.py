"""A sample of the units that a stage works on, and tables in which stand-ins take the place of what is not there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.execution.stage import Stage
from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables

Unit = tuple[str, str, int]
"""A module, a polarity, and the index of a unit in the module."""

SAMPLE = 32
"""Units whose prompts are rendered at most."""


@dataclass(frozen=True)
class Sample:
    """What a stage is run on, so that its requests can be counted."""

    units: list[Unit]
    """All that the stage works on."""
    drawn: list[Unit]
    """Some of them, in random order."""
    inputs: str
    """What the tables hold that prompts are made of, in words."""


class SampleTables(Tables):
    """The tables of a run, some of them replaced by tables in memory."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.replaced: dict[str, pa.Table] = {}

    def read(
        self, table: TableSchema, where: Any = None, columns: Sequence[str] | None = None, shard: str | None = None
    ) -> pa.Table:
        """As `Tables.read`."""
        if table.name not in self.replaced:
            return super().read(table, where, columns, shard)
        rows = self.replaced[table.name]
        rows = rows if where is None else rows.filter(where)
        return rows.select(list(columns)) if columns else rows

    def batches(
        self, table: TableSchema, where: Any = None, columns: Sequence[str] | None = None, rows: int = 1024
    ) -> Iterator[pa.RecordBatch]:
        """As `Tables.batches`."""
        yield from self.read(table, where, columns).to_batches(rows)


def planned_units(stage: Stage, config: RunConfig, tables: Tables) -> list[Unit]:
    """The units of all shards of a stage."""
    return [
        (shard.key["module"], shard.key["polarity"], index)
        for shard in stage.plan(config, tables)
        for index in shard.key["indices"]
    ]


def drawn(config: RunConfig, units: Sequence[Unit]) -> list[Unit]:
    """At most SAMPLE of the units, by the seed."""
    order = np.random.default_rng(config.run.seed).permutation(len(units))
    return [units[place] for place in order[:SAMPLE]]


def filled(table: TableSchema, columns: dict[str, Any]) -> pa.Table:
    """A table with some columns; the others are null."""
    rows = len(next(iter(columns.values())))
    values = [columns.get(field.name, pa.nulls(rows, field.type)) for field in table.schema]
    return pa.table(dict(zip(table.schema.names, values, strict=True))).cast(table.schema)
