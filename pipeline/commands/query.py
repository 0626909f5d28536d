"""Query a run's dataset with DuckDB, where every table of the run is a view, and print rows as text for people.

Nothing is cut, and no control character reaches the terminal.
"""

import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.results.run_folder import open_run

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

FORMATS = ("table", "csv", "json", "parquet")
UNLIMITED = 100_000
"""Columns of text where output goes to a file."""


def final_report(root: Path, seed: int, reports: Sequence[MethodReport]) -> str:
    """The reports of all methods that the run has used."""
    run = open_run(root)
    return "\n\n".join(report.describe(run.connection, root, seed) for report in reports if report.table in run.tables)


def run_query(root: Path, sql: str | None, style: str, reports: Sequence[MethodReport]) -> None:
    """Write the result of a query to standard output, by default the best explanations.

    Raises:
        UserError: the run has no table yet, or DuckDB does not accept the query.
    """
    import duckdb

    if style not in FORMATS:
        raise UserError(f"--format {style!r}; allowed: {', '.join(FORMATS)}")
    run = open_run(root)
    try:
        used = [report for report in reports if report.table in run.tables]
        result = run.sql(sql or (used or reports)[0].best)
        if result is None:
            raise UserError("the query has no result; write a SELECT")
        _write(result, style)
    except duckdb.Error as error:
        raise UserError(
            f"{error}\nTables of this run: {', '.join(run.tables)}; their columns are described in outputs/README.md"
        ) from None


def _write(result: "DuckDBPyRelation", style: str) -> None:
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


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> str:
    """Rows under their column names, numbers to the right. Null is a dash.

    Args:
        width: columns of text to wrap long cells to; unless given the terminal's, and none where output is no terminal.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for place, name in enumerate(columns):
        numbers = all(isinstance(row[place], (int, float)) or row[place] is None for row in rows)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    out = io.StringIO()
    Console(file=out, width=width or _width(), color_system=None).print(table)
    return "\n".join(line.removeprefix(" ").rstrip() for line in out.getvalue().strip("\n").splitlines()).strip("\n")


def safe(text: str) -> str:
    """Text in which control characters, escape sequences and marks of direction are written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return safe(f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value))
