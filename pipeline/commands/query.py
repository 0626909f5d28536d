"""Query a run's dataset with DuckDB, where every table of the run is a view, and print rows as text for people.

Nothing is cut, and no control character reaches the terminal.
"""

import io
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.results.repeats import luck
from pipeline.results.run_caveats import caveats_of
from pipeline.results.run_folder import RunFolder, damage_named, open_run
from pipeline.terminal_text import safe, safe_lines

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

FORMATS = ("table", "csv", "json", "parquet")
UNLIMITED = 100_000
"""Columns of text where output goes to a file."""


def final_report(root: Path, seed: int, reports: Sequence[MethodReport]) -> str:
    """The reports of all methods that the run has used."""
    run = open_run(root)
    with damage_named(root):
        parts = [report.describe(run.connection, root, seed) for report in reports if report.table in run.tables]
    return "\n\n".join([*parts, *(f"{words}." for words in [*luck(root), *caveats_of(root)])])


def run_query(root: Path, words: str, style: str, reports: Sequence[MethodReport], *, unsafe: bool = False) -> None:
    """Write the result of a query to standard output.

    Args:
        words: SQL over the tables of the run, or the name of a ready-made query and what it takes; the best explanations without any.
        unsafe: let the SQL do whatever DuckDB can do, such as to read and write files; else it is one SELECT over the tables.

    Raises:
        UserError: the run has no table yet, a file of it is damaged, or DuckDB does not accept the query.
    """
    import duckdb

    from pipeline.commands.ready_queries import READY

    check_format(style)
    run = open_run(root)
    name, _, rest = (words.strip() or "best").partition(" ")
    known = (
        f"Tables of this run: {', '.join(run.tables)}; their columns are described in outputs/README.md. "
        f"Ready-made queries: {', '.join(READY)}"
    )
    make = (
        partial(READY[name], run, rest.strip(), reports) if name in READY else partial(_sql, run, words, known, unsafe)
    )
    try:
        with damage_named(root):
            if (result := make()) is None:
                raise UserError("the query has no result; write a SELECT")
            write_result(result, style)
    except duckdb.Error as error:
        raise UserError(f"{error}\n{known}") from None


def _sql(run: RunFolder, sql: str, known: str, unsafe: bool) -> "DuckDBPyRelation":
    """The result of SQL: unless it is `unsafe`, of one SELECT that sees the tables of the run, and no file, extension or setting."""
    from pipeline.serve.query_process import locked_connection, refusal

    if unsafe:
        return run.sql(sql)
    connection = locked_connection({name: run.dataset(name) for name in run.tables})
    if message := refusal(connection.cursor(), sql):
        raise UserError(
            f"{message}\n{known}\nWith --unsafe (UNSAFE=1) a query may also read and write any file, attach databases, load extensions "
            "and change settings: give it only to SQL that you would run as a program"
        )
    return connection.sql(sql)


def check_format(style: str) -> None:
    """Raises UserError: there is no such format."""
    if style not in FORMATS:
        raise UserError(f"--format {style!r}; allowed: {', '.join(FORMATS)}")


def write_result(result: "DuckDBPyRelation", style: str) -> None:
    """Write rows to standard output in one of FORMATS."""
    if style == "table":
        sys.stdout.write(format_table(result.columns, result.fetchall()) + "\n")
    elif style == "csv":
        text = result.df().to_csv(index=False)
        sys.stdout.write(safe_lines(text) if sys.stdout.isatty() else text)
    elif style == "json":
        result.df().to_json(sys.stdout, orient="records", lines=True, force_ascii=sys.stdout.isatty())
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
        table.add_column(Text(safe(name)), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    out = io.StringIO()
    Console(file=out, width=width or _width(), color_system=None).print(table)
    return "\n".join(line.removeprefix(" ").rstrip() for line in out.getvalue().strip("\n").splitlines()).strip("\n")


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return safe(f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value))
