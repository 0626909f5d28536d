"""Commands that look at what a run made."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command_line.options import Config, Folder, Format, load_run
from stages import REPORTS

app = typer.Typer()


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

    run_query(Path(run) if run else load_run(config).root, " ".join(words or ()), format, REPORTS)


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

    show_unit(Path(run) if run else load_run(config).root, module, index, polarity, exemplars)


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

    typer.echo(make_report(Path(run) if run else load_run(config).root, REPORTS))


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

    loaded = None if run else load_run(config)
    root = Path(run) if loaded is None else loaded.root
    serve_run(root, REPORTS, None if loaded is None else partial(UnitTrials, loaded), host, port)


@app.command(epilog="Example: python -m pipeline plots --config my.toml")
def plots(config: Config = "demo", run: Folder = "") -> None:
    """Draw the scores of a run for a paper, as SVG and PNG."""
    from pipeline.commands.plots import make_plots

    typer.echo(make_plots(Path(run) if run else load_run(config).root, REPORTS))
