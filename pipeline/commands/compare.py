"""Print how the scores of runs differ from those of a first one, on the units that it shares with each."""

from collections.abc import Sequence
from pathlib import Path

import typer

from pipeline.commands.query import check_format, format_table, write_result
from pipeline.results.repeats import repeats_of, spread
from pipeline.results.run_caveats import caveats_of
from pipeline.results.run_folder import open_run

KEY = """difference: the mean score in the other run minus that in A, on units scored in both; ci_low to ci_high: its 95 % bootstrap
interval; agreement: Pearson's correlation of the two over these units"""
LUCK_KEY = """sd: standard deviation of the mean over the runs; sd_unit: that of one unit's number"""
AGREEMENT_KEY = """correlation: Pearson's, of their scores over units; kappa: Cohen's, of their answers to the same questions of texts"""


def print_comparison(a: Path, others: Sequence[Path], style: str) -> None:
    """Write the comparison of a run with each of some others, or without others that of its own judges and simulators, to standard output.

    Raises:
        UserError: there is no such run or format, two runs have no scored unit in common, or one has no two judges or simulators.
    """
    import duckdb
    import pandas as pd
    import pyarrow as pa

    check_format(style)
    first, found = open_run(a), []
    if not others:
        write_result(duckdb.from_arrow(pa.Table.from_pandas(first.agreements(), preserve_index=False)), style)
        typer.echo(f"\n{AGREEMENT_KEY}" if style == "table" else "", nl=style == "table")
        return
    for name, other in zip("BCDEFGHIJKLMNOPQRSTUVWXYZ", others, strict=False):
        compared = first.compare(open_run(other)).rename(columns={"this": "A"})
        found.append(compared.assign(run=name) if len(others) > 1 else compared.rename(columns={"other": "B"}))
    rows = pa.Table.from_pandas(pd.concat(found), preserve_index=False)
    write_result(duckdb.from_arrow(rows), style)
    if style == "table":
        names = "\n".join(
            ". ".join([f"{name}  {path}", *caveats_of(path)])
            for name, path in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", [a, *others], strict=False)
        )
        typer.echo(f"\n{names}\n{KEY}")
        if {a, *others} == set(roots := [root for root in repeats_of(a) if root in (a, *others)]) and len(roots) > 1:
            repeats = spread(roots)
            typer.echo(
                f"\nThey differ in the seed alone:\n{format_table(list(repeats.columns), repeats.values.tolist())}\n{LUCK_KEY}"
            )
