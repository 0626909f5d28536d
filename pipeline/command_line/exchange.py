"""Commands that write runs for other programs, and read what these have made."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.command_line.options import Config, Folder, load_run
from pipeline.exports import EXPORTS
from pipeline.imports import IMPORTS
from pipeline.results.run_folder import damage_named
from pipeline.storage.stores import place
from stages import REPORTS, STAGES

app = typer.Typer()


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
    root = place(run) if run else load_run(config).root
    with damage_named(root):
        typer.echo(export_run(format, root, target, REPORTS, modules, every=every))


@app.command(name="import", epilog="Example: python -m pipeline import openai neurons --to outputs/neurons")
def import_(
    format: Annotated[str, typer.Argument(help=", ".join(IMPORTS))],
    folder: Annotated[Path, typer.Argument(help="what another program has written")],
    to: Annotated[Path, typer.Option(help="the run's folder to write; there must not be one")],
) -> None:
    """Read what another program has recorded and explained into a run, to simulate and score its explanations."""
    from pipeline.commands.import_run import import_run

    typer.echo(import_run(format, folder, to.absolute(), STAGES))
