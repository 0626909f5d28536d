"""Query a run's dataset with DuckDB: every table of the run is a view. A finished run reports by such queries."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

from pipeline.commands.printed_tables import format_table
from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.schemas import TableSchema

FORMATS = ("table", "csv", "json", "parquet")


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


def run_query(
    root: Path, sql: str | None, style: str, tables: Mapping[str, TableSchema], reports: Sequence[MethodReport]
) -> None:
    """Write the result of a query to standard output, by default the best explanations.

    Raises:
        UserError: the run has no table yet, or DuckDB does not accept the query.
    """
    if style not in FORMATS:
        raise UserError(f"--format {style!r}; allowed: {', '.join(FORMATS)}")
    connection = open_views(root, tables)
    try:
        result = connection.sql(sql or _best(view_names(connection), reports))
        if result is None:
            raise UserError("the query has no result; write a SELECT")
        _write(result, style)
    except duckdb.Error as error:
        views = ", ".join(view_names(connection))
        raise UserError(
            f"{error}\nTables of this run: {views}; their columns are described in outputs/README.md"
        ) from None


def _best(views: Sequence[str], reports: Sequence[MethodReport]) -> str:
    """The query for the best explanations of the first method that the run has used."""
    return next((report.best for report in reports if report.table in views), reports[0].best)


def _write(result: duckdb.DuckDBPyRelation, style: str) -> None:
    if style == "table":
        sys.stdout.write(format_table(result.columns, result.fetchall()) + "\n")
    elif style == "csv":
        result.df().to_csv(sys.stdout, index=False)
    elif style == "json":
        result.df().to_json(sys.stdout, orient="records", lines=True, force_ascii=False)
    else:
        if sys.stdout.isatty():
            raise UserError("--format parquet writes bytes; redirect it into a file")
        import pyarrow.parquet as pq

        pq.write_table(result.to_arrow_table(), sys.stdout.buffer)
