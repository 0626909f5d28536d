"""Queries that people need again and again, under a name: the best and the worst explanations, a search,
a comparison with another run, and what has no score."""

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.results.run_folder import RunFolder
from pipeline.results.score_tables import NOT_SELECTED, score_tables
from pipeline.schemas import NULL_UNITS, OUTCOME, UNIT_KEYS
from pipeline.terminal_text import safe_lines

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

KEYS = ["module", '"index"', "polarity", "explainer", "candidate"]
"""What tells explanations apart, as SQL: an order ends with it, so that it is the same every time."""
SHOWN = 20
"""Rows of a search, and of the worst explanations."""


def best(run: RunFolder, words: str, reports: Sequence[MethodReport]) -> "DuckDBPyRelation":
    """The best explanations by the first method that the run has used."""
    _refuse("best", words)
    used = [report for report in reports if report.table in run.tables]
    return run.sql((used or reports)[0].best)


def worst(run: RunFolder, words: str, reports: Sequence[MethodReport]) -> "DuckDBPyRelation":
    """The explanations with the lowest scores by that method."""
    _refuse("worst", words)
    tables = {table.name: table for table in score_tables(run)}
    for report in reports:
        if table := tables.get(report.table):
            return run.sql(
                f'SELECT module, "index", polarity, explainer, {table.score}, ci_low, ci_high, text FROM {table.name} '
                f"WHERE {table.score} IS NOT NULL AND module <> '{NULL_UNITS}' "
                f"ORDER BY {', '.join([table.score, *KEYS, *table.methods])} LIMIT {SHOWN}"
            )
    raise UserError(f"{run.root} has no scores yet; they are made by: make run")


def search(run: RunFolder, words: str, _: Sequence[MethodReport]) -> "DuckDBPyRelation":
    """The explanations that fit some words best."""
    import duckdb
    import pyarrow as pa

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        found = run.search(words, SHOWN)
    for warning in told:
        if issubclass(warning.category, UserWarning):
            typer.echo(safe_lines(f"neurogloss: {warning.message}"), err=True)
    return duckdb.from_arrow(pa.Table.from_pandas(found, preserve_index=False))


def compare(run: RunFolder, words: str, _: Sequence[MethodReport]) -> "DuckDBPyRelation":
    """The scores of another run against those of this one."""
    import duckdb
    import pyarrow as pa

    if not words:
        raise UserError("query compare needs the folder of another run, such as: query compare outputs/other")
    return duckdb.from_arrow(pa.Table.from_pandas(run.compare(words), preserve_index=False))


def failures(run: RunFolder, words: str, _: Sequence[MethodReport]) -> "DuckDBPyRelation":
    """What has no result, by table and reason: how many rows, of how many units, and one of these."""
    _refuse("failures", words)
    needed = {*UNIT_KEYS, *(field.name for field in OUTCOME)}
    tables = [name for name in run.tables if needed <= set(run.dataset(name).schema.names)]
    if not tables:
        raise UserError(f"{run.root} has no table with an outcome yet; such tables are made by: make explain")
    key = "concat_ws(' ', module, \"index\", polarity)"
    parts = [
        f"SELECT '{name}' AS \"table\", status, error, count(*) AS rows, count(DISTINCT {key}) AS units, min({key}) AS example "
        f"FROM {name} WHERE status NOT IN ('ok', '{NOT_SELECTED}') GROUP BY ALL"
        for name in tables
    ]
    return run.sql(" UNION ALL ".join(parts) + " ORDER BY status = 'failed' DESC, units DESC, 1, 3, 2")


def _refuse(name: str, words: str) -> None:
    if words:
        raise UserError(f"query {name} takes nothing after its name; got {words!r}")


READY: dict[str, Callable[[RunFolder, str, Sequence[MethodReport]], "DuckDBPyRelation"]] = {
    "best": best,
    "worst": worst,
    "search": search,
    "compare": compare,
    "failures": failures,
}
