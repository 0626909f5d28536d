"""Which tables of a run hold explanations, and which hold scores: their columns tell, whatever the tables are called.

A row of such a table begins with the keys of an explanation and its text. A table of scores has columns of floats beside them. The first of
these is the score itself, and columns of text beyond the outcome tell several scores of one explanation apart, such as `simulator`; but
`model` only says which language model took part. A column named as the score with `_lookup` behind it is that of the full token table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipeline.errors import UserError
from pipeline.schemas import EXPLANATION_KEYS, NULL_UNITS, OUTCOME
from pipeline.storage.checked_reading import damage_told

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds

NOT_SELECTED = "not_selected"
"""Status of an explanation that lost to another candidate of its unit."""


class OpenRun(Protocol):
    """The part of an opened run that its tables are read by."""

    root: Path

    @property
    def tables(self) -> list[str]:
        """Names of its tables."""
        ...

    def files(self, table: str) -> list[Path]:
        """The files of one of them."""
        ...

    def dataset(self, table: str) -> "ds.FileSystemDataset":
        """One of them."""
        ...

    def schema(self, table: str) -> pa.Schema:
        """The columns of one of them."""
        ...

    def unit_rows(self, table: str, module: str, index: int, polarity: str | None = None) -> pa.Table:
        """The rows of one of them about a unit."""
        ...

    def sequences(self, seq_ids: Iterable[int]) -> pa.Table:
        """seq_id and tokens of some sequences."""
        ...


@dataclass(frozen=True)
class ScoreTable:
    """A table with a row for each explanation that was scored, or for each way in which it was."""

    name: str
    score: str
    """The column with the score itself."""
    methods: tuple[str, ...]
    """Columns that tell scores of one explanation apart."""
    numbers: tuple[str, ...]
    """All columns of floats."""

    @property
    def lookup(self) -> str:
        """The column with the same score of the full token table, the baseline; empty where there is none."""
        name = f"{self.score}_lookup"
        return name if name in self.numbers else ""


def score_tables(run: OpenRun) -> list[ScoreTable]:
    """The tables of scores that the run has by now."""
    outcome = {field.name for field in OUTCOME}
    found = []
    for name, schema in _explained(run).items():
        others = [field for field in schema if field.name not in {*EXPLANATION_KEYS, "text", *outcome}]
        numbers = tuple(field.name for field in others if pa.types.is_floating(field.type))
        if numbers:
            methods = tuple(one.name for one in others if pa.types.is_string(one.type) and one.name != "model")
            found.append(ScoreTable(name, numbers[0], methods, numbers))
    return found


def explanation_tables(run: OpenRun) -> list[str]:
    """The tables that hold explanations as they were written, before any score."""
    scored = {table.name for table in score_tables(run)}
    return [name for name in _explained(run) if name not in scored]


def read(run: OpenRun, table: str, columns: Sequence[str] | None = None, where: Any = None) -> "pd.DataFrame":
    """Some rows of a table, all unless a pyarrow expression is given. A list with numbers is an array in which null is NaN."""
    with damage_told(run.files(table)):
        rows: pd.DataFrame = run.dataset(table).to_table(columns=columns and list(columns), filter=where).to_pandas()
    return rows


def published(run: OpenRun) -> "pd.DataFrame":
    """The explanations of a run that have a text and did not lose to another candidate, with their scores.

    Returns:
        A row for each explanation: its keys, `text`, and a column for each table of scores, named as the score is. Of several scores in
        one table, such as by several methods, it is the highest.

    Raises:
        UserError: the run has no explanations yet.
    """
    import pandas as pd

    parts = [read(run, name, [*EXPLANATION_KEYS, "text"]) for name in explanation_tables(run)]
    if not parts:
        raise UserError(f"{run.root} has no explanations yet; they are made by: make explain")
    found = pd.concat(parts).dropna(subset="text")
    found = found[found["module"] != NULL_UNITS].set_index(EXPLANATION_KEYS)
    for table in score_tables(run):
        rows = read(run, table.name, [*EXPLANATION_KEYS, "status", table.score]).set_index(EXPLANATION_KEYS)
        found = found[~found.index.isin(rows.index[rows["status"] == NOT_SELECTED])]
        highest = rows[table.score].groupby(level=EXPLANATION_KEYS).max()
        found[table.score] = highest.reindex(found.index)
    return found.reset_index()


def _explained(run: OpenRun) -> dict[str, pa.Schema]:
    """Schemas of the tables whose rows begin with an explanation."""
    start = [*EXPLANATION_KEYS, "text"]
    schemas = {name: run.schema(name) for name in run.tables}
    return {name: schema for name, schema in schemas.items() if schema.names[: len(start)] == start}
