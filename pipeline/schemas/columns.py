"""What a table is, and the columns that several tables share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

UNIT_KEYS = ["module", "index", "polarity"]
EXPLANATION_KEYS = [*UNIT_KEYS, "explainer", "candidate"]


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
OUTCOME = [
    column("status", pa.string(), "ok, or why there is no result"),
    column("error", pa.string(), "what went wrong, in words; null where nothing did"),
]
