"""A run's dataset as views of DuckDB, and what each method of explaining units says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from pipeline.errors import UserError
from pipeline.schemas import TableSchema


@dataclass(frozen=True)
class MethodReport:
    """What a method of explaining units has to say once a run is finished."""

    table: str
    """The table that holds its scores; without it the method has nothing to say."""
    best: str
    """The query for its best explanations."""
    describe: Callable[[duckdb.DuckDBPyConnection, Path, int], str]
    """The report, from the views, the run's folder, and the seed for what is drawn at random."""


def open_views(root: Path, tables: Mapping[str, TableSchema]) -> duckdb.DuckDBPyConnection:
    """A connection in which every finished table of a run is a view.

    Raises:
        UserError: the run has no table yet.
    """
    connection = duckdb.connect()
    found = []
    for name, table in tables.items():
        if any((root / table.path).glob("*.parquet")):
            pattern = str(root / table.path / "*.parquet").replace("'", "''")
            connection.sql(f"SELECT * FROM read_parquet('{pattern}')").create_view(name)
            found.append(name)
    if not found:
        raise UserError(f"no table in {root} yet; start the run with: make run")
    return connection


def view_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the views."""
    return [name for (name,) in connection.sql("SHOW TABLES").fetchall()]


def final_report(root: Path, seed: int, tables: Mapping[str, TableSchema], reports: Sequence[MethodReport]) -> str:
    """The reports of all methods that the run has used."""
    connection = open_views(root, tables)
    found = view_names(connection)
    return "\n\n".join(report.describe(connection, root, seed) for report in reports if report.table in found)
