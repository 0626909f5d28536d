"""Commands that look at what a run made."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.command_line.options import Changes, Config, Folder, Folders, Format, kept_run, load_kept_run, load_run
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.results.run_folder import damage_named
from pipeline.storage.stores import place
from stages import REPORTS, STAGES
from stages.settings import SECTIONS

if TYPE_CHECKING:
    from pipeline.serve.attempts import Attempts

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
    unsafe: Annotated[
        bool,
        typer.Option(
            "--unsafe",
            help="let the SQL also read and write any file, attach databases, load extensions and change settings; "
            "without it, it is one SELECT that sees the tables of the run alone",
        ),
    ] = False,
) -> None:
    """Query the dataset of a run with DuckDB; nothing is written."""
    from pipeline.commands.query import run_query

    run_query(place(run) if run else load_run(config).root, " ".join(words or ()), format, REPORTS, unsafe=unsafe)


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

    root = place(run) if run else load_run(config).root
    with damage_named(root):
        show_unit(root, module, index, polarity, exemplars)


@app.command(epilog="Example: python -m pipeline compare outputs/demo outputs/other")
def compare(
    a: Annotated[str, typer.Argument(help="folder of a run")],
    others: Annotated[list[str] | None, typer.Argument(help="folders of runs to compare with it, up to 25")] = None,
    format: Format = "table",
) -> None:
    """Compare the scores of runs with those of a first one, on the units that both have; without others, its judges and simulators."""
    from pipeline.commands.compare import print_comparison

    first, *rest = map(place, [a, *(others or ())])
    with damage_named(first, *rest):
        print_comparison(first, rest, format)


@app.command(epilog="Example: python -m pipeline report --config my.toml")
def report(config: Config = "demo", run: Folder = "") -> None:
    """Make pages of a run that a browser opens from disk."""
    from pipeline.commands.report import make_report

    root = place(run) if run else load_run(config).root
    with damage_named(root):
        typer.echo(make_report(root, REPORTS))


@app.command(epilog="Example: python -m pipeline serve --config my.toml --port 8000")
def serve(
    config: Config = "demo",
    run: Folders = None,
    port: Annotated[int, typer.Option(help="port to listen at; 0 is any that is free")] = 8000,
    host: Annotated[str, typer.Option(help="address to listen at; beyond loopback a token is wanted")] = "127.0.0.1",
) -> None:
    """Serve the pages of a run and of those beside it, finished or not, with queries and with attempts at their units."""
    from pipeline.commands.serve import serve_runs

    roots = [place(one).absolute() for one in run or ()]
    if not roots:
        loaded = load_run(config)
        serve_runs([loaded.root], REPORTS, partial(trials_of, loaded), host, port)
        return
    with suppress(UserError):  # its pages need no run file
        load_kept_run(roots[0])
    serve_runs(roots, REPORTS, partial(trials_of, None), host, port)


def trials_of(loaded: RunConfig | None, root: Path) -> "Callable[[], Attempts] | None":
    """What can be tried on a run: on that of `loaded`, and on those whose folder keeps a run file that works here.

    A folder may come from somebody else, so a run file that names code or a key is not taken from it.
    """
    from stages.try_units import UnitTrials

    if loaded is not None and loaded.root.absolute() == root:
        return partial(UnitTrials, loaded)
    kept = kept_run(root)
    if kept is None or not kept.is_harmless or kept.paths_from != Path.cwd():
        return None
    return partial(UnitTrials, kept.config)


@app.command(epilog="Example: python -m pipeline reproduce outputs/demo")
def reproduce(
    run: Annotated[str, typer.Argument(help="folder of a finished run")],
    to: Annotated[str | None, typer.Option(help="the folder to make it in, beside the run unless given")] = None,
    changes: Changes = None,
) -> None:
    """Make a run again from what its folder keeps, asking no endpoint, and compare all rows; exit code 1 where some differ."""
    from pipeline.commands.reproduce import reproduce_run

    root = place(run).absolute()
    target = root.with_name(f"{root.name}-again") if to is None else place(to).absolute()
    raise typer.Exit(reproduce_run(root, load_kept_run(root, changes), STAGES, SECTIONS, target))


@app.command(epilog="Example: python -m pipeline plots --config my.toml")
def plots(config: Config = "demo", run: Folder = "") -> None:
    """Draw the scores of a run for a paper, as SVG and PNG."""
    from pipeline.commands.plots import make_plots

    root = place(run) if run else load_run(config).root
    with damage_named(root):
        typer.echo(make_plots(root, REPORTS))
