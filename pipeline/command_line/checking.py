"""Commands that check what a run made, and put right what is wrong."""

from typing import Annotated

import typer

from pipeline.command_line.options import Config, load_run, stages_of_run
from pipeline.storage.stores import place
from stages import STAGES

app = typer.Typer()

Run = Annotated[str, typer.Argument(help="folder of a run; that of --config unless given")]


@app.command(epilog="Example: python -m pipeline verify outputs/demo")
def verify(run: Run = "", config: Config = "demo") -> None:
    """Read a run again and say what is wrong, file by file; exit code 1 where something is."""
    from pipeline.commands.verify import verify_run

    if run:
        well = verify_run(place(run), STAGES)
    else:
        loaded = load_run(config)
        well = verify_run(loaded.root, stages_of_run(loaded), loaded)
    raise typer.Exit(0 if well else 1)


@app.command(epilog="Example: python -m pipeline repair outputs/demo")
def repair(run: Run = "", config: Config = "demo") -> None:
    """Move what is wrong in a run into its folder _damaged, and say what makes it again."""
    from pipeline.commands.repair import repair_run

    root, run_file = (place(run), "") if run else (load_run(config).root, config)
    repair_run(root, STAGES, run_file)
