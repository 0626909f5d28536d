"""What a finished run says of its scores on examples, below those of the simulation: means with their controls, and of how many units."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.execution.stage import MethodReport

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLE = "example_scores"
MEANS = f"""
SELECT method || CASE WHEN count(DISTINCT explainer) OVER () > 1 THEN ', ' || explainer ELSE '' END AS "scores on examples",
       avg(example_score) AS mean, avg(example_score_shuffled) AS "under other explanations", avg(chance) AS chance,
       count(example_score) AS units
FROM {TABLE} GROUP BY method, explainer ORDER BY method, explainer"""


def with_examples(report: MethodReport) -> MethodReport:
    """The report of a method, and below it the scores on examples where the run has any."""
    return replace(report, describe=_below(report.describe))


def _below(
    describe: "Callable[[DuckDBPyConnection, Path, int], str]",
) -> "Callable[[DuckDBPyConnection, Path, int], str]":
    def both(connection: "DuckDBPyConnection", root: Path, seed: int) -> str:
        from pipeline.commands.query import format_table

        said = describe(connection, root, seed)
        names = {row[0] for row in connection.sql("SHOW TABLES").fetchall()}
        if TABLE not in names:
            return said
        rows = connection.sql(MEANS)
        return f"{said}\n\n{format_table(rows.columns, rows.fetchall())}"

    return both
