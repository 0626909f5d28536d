"""Print how the scores of two runs differ on the units that both have."""

from pathlib import Path

import typer

from pipeline.commands.query import check_format, write_result
from pipeline.results.run_folder import open_run

KEY = """difference: the mean score in B minus that in A, on units scored in both; ci_low to ci_high: its 95 % bootstrap interval"""


def print_comparison(a: Path, b: Path, style: str) -> None:
    """Write the comparison of two runs to standard output.

    Raises:
        UserError: there is no such run or format, or the runs have no scored unit in common.
    """
    import duckdb
    import pyarrow as pa

    check_format(style)
    found = open_run(a).compare(open_run(b)).rename(columns={"this": "A", "other": "B"})
    write_result(duckdb.from_arrow(pa.Table.from_pandas(found, preserve_index=False)), style)
    if style == "table":
        typer.echo(f"\nA  {a}\nB  {b}\n{KEY}")
