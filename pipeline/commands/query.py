"""Query a run's dataset with DuckDB; every table of the run is a view."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from pipeline.errors import UserError
from pipeline.schemas import TABLES
from pipeline.schemas.ngrams import NULLS

FORMATS = ("table", "csv", "json", "parquet")
TOP_EXPLANATIONS = """
SELECT module, "index", correlation, ci_low, ci_high, correlation_shuffled AS control, text
FROM scores WHERE correlation IS NOT NULL ORDER BY correlation DESC LIMIT 20"""
TOP_THEMES = f"""
SELECT module, "index", polarity, score, ci_low, ci_high, p_value, text
FROM sasc_scores WHERE score IS NOT NULL AND module <> '{NULLS}' ORDER BY score DESC LIMIT 20"""


def open_views(root: Path) -> duckdb.DuckDBPyConnection:
    """A connection in which every finished table of a run is a view.

    Raises:
        UserError: the run has no table yet.
    """
    connection = duckdb.connect()
    found = []
    for name, table in TABLES.items():
        if any((root / table.path).glob("*.parquet")):
            pattern = str(root / table.path / "*.parquet").replace("'", "''")
            connection.sql(f"SELECT * FROM read_parquet('{pattern}')").create_view(name)
            found.append(name)
    if not found:
        raise UserError(f"no table in {root} yet; start the run with: make run")
    return connection


def run_query(root: Path, sql: str | None, style: str) -> None:
    """Write the result of a query to standard output, by default the best explanations.

    Raises:
        UserError: the run has no table yet, or DuckDB does not accept the query.
    """
    if style not in FORMATS:
        raise UserError(f"--format {style!r}; allowed: {', '.join(FORMATS)}")
    connection = open_views(root)
    try:
        result = connection.sql(sql or _best(connection))
        if result is None:
            raise UserError("the query has no result; write a SELECT")
        _write(result, style)
    except duckdb.Error as error:
        views = ", ".join(row[0] for row in connection.sql("SHOW TABLES").fetchall())
        raise UserError(
            f"{error}\nTables of this run: {views}; their columns are described in outputs/README.md"
        ) from None


def _best(connection: duckdb.DuckDBPyConnection) -> str:
    """The query for the best explanations of the methods that the run has used."""
    views = {name for (name,) in connection.sql("SHOW TABLES").fetchall()}
    return TOP_THEMES if "sasc_scores" in views and "scores" not in views else TOP_EXPLANATIONS


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


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], widest: int = 88) -> str:
    """Rows as aligned text; long cells are cut and control characters are shown as escapes."""
    cells = [[_cell(value, widest) for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(columns)]
    right = [all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(columns))]
    lines = [list(columns), ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: Any, widest: int) -> str:
    if value is None:
        return "-"
    text = f"{round(value, 3) + 0.0:.3f}" if isinstance(value, float) else str(value)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= widest else text[: widest - 1] + "…"
