"""What a table of a run is: its schema, its version, what identifies a row, and the columns that several tables have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

UNIT_KEYS = ["module", "index", "polarity"]
EXPLANATION_KEYS = [*UNIT_KEYS, "explainer", "candidate"]
NULL_UNITS = "black_box:null_directions"
"""The module of units that are random by design: what is scored on them is a control, and no result about a subject."""


@dataclass(frozen=True)
class Reference:
    """Rows of another table that the rows of a table are about: without these they mean nothing."""

    table: str
    """Its name. Where a run has no such table, nothing is expected of it."""
    columns: tuple[str, ...]
    """Columns of both tables that are equal."""
    where: str = ""
    """SQL that the rows fulfil which need one; all unless given."""


@dataclass(frozen=True)
class TableSchema:
    """A table's name, version and columns."""

    name: str
    version: int
    schema: pa.Schema
    units_per_group: int | None = None
    """Row groups are cut after this many units, so that one unit is found without a scan."""
    rows_per_group: int = 1024
    """Rows of a row group where groups are not cut by units."""
    folder: str = ""
    """Folder in the run's folder; the table's name unless given."""
    temporary: bool = False
    """Whether its rows are removed once the stages that read them are finished."""
    key: tuple[str, ...] = ()
    """Columns that tell its rows apart: no two rows are equal in all of them. Not known of work tables."""
    refers: tuple[Reference, ...] = ()
    """What its rows are about."""

    @property
    def path(self) -> str:
        return self.folder or self.name

    @property
    def tag(self) -> str:
        """What the footer says: `scores/1`."""
        return f"{self.name}/{self.version}"

    def of_rows(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """The table with these rows; a value that is left out or NaN is null, as what could not be computed is no number."""
        columns = {
            field.name: pa.array([row.get(field.name) for row in rows], type=field.type, from_pandas=True)
            for field in self.schema
        }
        return pa.table(columns, schema=self.schema)


def unit_table(
    name: str,
    version: int,
    *columns: pa.Field,
    folder: str = "",
    key: Sequence[str] = (),
    refers: Sequence[Reference] = (),
    units_per_group: int = 64,
) -> TableSchema:
    """A table with rows of units."""
    schema = pa.schema(columns)
    return TableSchema(name, version, schema, units_per_group, folder=folder, key=tuple(key), refers=tuple(refers))


def column(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    """A column with its meaning."""
    return pa.field(name, kind, metadata={"meaning": meaning})


FLOATS = pa.list_(pa.float32())
UNIT = [
    column("module", pa.string(), "place in the subject, such as layers.3.mlp"),
    column("index", pa.int32(), "number of the unit in its module"),
]
POLARITY = column("polarity", pa.string(), "'+': large activations; '-': very negative ones")
EXPLANATION = [
    *UNIT,
    POLARITY,
    column("explainer", pa.string(), "method that wrote the explanation"),
    column("candidate", pa.int32(), "number of the candidate, 0 is the explainer's own favourite"),
]
OF_SEQUENCE = Reference("corpus", ("seq_id",))
OF_EXPLANATION = Reference("explanations", tuple(EXPLANATION_KEYS))
OUTCOME = [
    column("status", pa.string(), "ok, or why there is no result"),
    column("error", pa.string(), "what went wrong, in words; null where nothing did"),
]
REPLY = [
    column("asked", pa.string(), "what the model was asked about the unit, behind the examples of its prompt"),
    column("reply", pa.string(), "the model's reply as it came"),
]
