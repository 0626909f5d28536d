"""Commands that run stages, here or on other machines, and that end them."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from pipeline.command_line.options import (
    GROUPS,
    Changes,
    Config,
    Only,
    Part,
    Redo,
    Wait,
    load_run,
    stages_of_run,
)
from pipeline.commands.run import needed_stages, part_of, run_pipeline
from pipeline.config import RunConfig
from pipeline.errors import UserError, nearest
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stopping import heeding_signals
from stages import REPORTS, STAGES

app = typer.Typer()

Launcher = Annotated[str, typer.Option("--launch", help="local, slurm or ray: have workers do it; see docs/cluster.md")]
AtMost = Annotated[int | None, typer.Option("--at-most", min=1, help="end after so many shards of a stage")]
RowsMayFail = Annotated[bool, typer.Option("--rows-may-fail", help="exit code 0 where rows failed, but no shard")]
EXIT_CODES = "Exit codes: 0 done, 1 rows or shards failed, 2 a mistake in the input, 3 others have what is left."


@app.command(epilog=f"Example: python -m pipeline run --config my.toml --set explain.units=5\n\n{EXIT_CODES}")
def run(
    config: Config = "demo",
    changes: Changes = None,
    shard: Part = "",
    redo: Redo = "",
    stage: Annotated[str, typer.Option(help="run this stage alone, such as record.scan")] = "",
    wait: Wait = True,
    launch: Launcher = "",
    at_most: AtMost = None,
    rows_may_fail: RowsMayFail = False,
) -> None:
    """Run all stages; what is done already is left alone. The same command several times side by side shares the work."""
    if stage and stage not in STAGES:
        raise UserError(f"--stage {stage!r}; {nearest(stage, list(STAGES))}")
    names, arguments = [stage] if stage else list(STAGES), ["run", *(["--stage", stage] if stage else [])]
    how = Sharing(part_of(shard), wait, at_most)
    _run(load_run(config, changes), names, how, redo, launch, arguments, rows_may_fail=rows_may_fail)


@app.command(epilog=f"Example: python -m pipeline repeat --config my.toml --times 3\n\n{EXIT_CODES}")
def repeat(
    config: Config = "demo",
    changes: Changes = None,
    times: Annotated[int, typer.Option(min=2, help="runs in all, that of the run file among them")] = 3,
) -> None:
    """Run with other seeds too, on the same units and in folders beside the run's, and show how much of each score is luck."""
    from pipeline.commands.query import format_table
    from pipeline.results.repeats import repeated, spread

    loaded = load_run(config, changes)
    configs = [repeated(loaded, number) for number in range(times)]
    for one in configs:
        with heeding_signals():
            if code := run_pipeline(one, stages_of_run(one), list(STAGES)):
                raise typer.Exit(code)
    found = spread([one.root for one in configs])
    typer.echo(format_table(list(found.columns), found.values.tolist()))


def _stage_command(group: str) -> Callable[..., None]:
    def command(
        config: Config = "demo",
        changes: Changes = None,
        shard: Part = "",
        redo: Redo = "",
        only: Only = False,
        wait: Wait = True,
        launch: Launcher = "",
        at_most: AtMost = None,
        rows_may_fail: RowsMayFail = False,
    ) -> None:
        loaded = load_run(config, changes)
        own = [name for name in STAGES if name.split(".")[0] == group]
        names = own if only else needed_stages(own, loaded, stages_of_run(loaded))
        how = Sharing(part_of(shard), wait, at_most)
        arguments = [group, *(["--only"] if only else [])]
        _run(loaded, names, how, redo, launch, arguments, rows_may_fail=rows_may_fail)

    titles = [stage.title for name, stage in STAGES.items() if name.split(".")[0] == group]
    command.__doc__ = f"Run the stage {group} and what it needs: {', '.join(titles)}."
    return command


for _group in GROUPS:
    app.command(_group, epilog=f"Example: python -m pipeline {_group} --config my.toml")(_stage_command(_group))


def _run(
    config: RunConfig,
    names: list[str],
    how: Sharing,
    redo: str,
    launch: str,
    arguments: list[str],
    *,
    rows_may_fail: bool,
) -> None:
    if redo and redo not in (known := list(dict.fromkeys([*GROUPS, *STAGES]))):
        raise UserError(f"--redo {redo!r}; {nearest(redo, known)}")
    stages = stages_of_run(config, redo)
    report = partial(_report, config)
    if not launch:
        with heeding_signals():
            raise typer.Exit(run_pipeline(config, stages, names, how, redo, report, rows_may_fail=rows_may_fail))
    from pipeline.commands.launch import launch_run

    if how.part != (0, 1) or how.at_most:
        raise UserError("--launch with --shard or --at-most; workers share the work by claims, leave these out")
    with heeding_signals():
        raise typer.Exit(launch_run(config, stages, names, launch, arguments, redo, report))


def _report(config: RunConfig) -> str:
    from pipeline.commands.query import final_report

    return f"{final_report(config.root, config.run.seed, REPORTS)}\n\nLook at the units in a browser: make report RUN={config.root}\n"


@app.command(epilog="Example: python -m pipeline status --config my.toml --watch")
def status(
    config: Config = "demo",
    watch: Annotated[
        bool, typer.Option("--watch", help="show it again and again, until all is done, or Ctrl-C")
    ] = False,
) -> None:
    """Show each stage's shards done, failed and left, its pace, and who is at work on what."""
    from pipeline.commands.status import status_text, watch_status

    loaded = load_run(config)
    if watch:
        watch_status(loaded, stages_of_run(loaded), REPORTS)
    else:
        typer.echo(status_text(loaded, stages_of_run(loaded), REPORTS))


@app.command(epilog="Example: python -m pipeline cancel --config my.toml")
def cancel(config: Config = "demo") -> None:
    """End what was launched for a run; what is finished stays, and the shards in hand are given back."""
    from pipeline.commands.launch import cancel as end_launches

    typer.echo(end_launches(load_run(config)))


@app.command(epilog="Example: python -m pipeline logs record.scan part-00003 --config my.toml")
def logs(
    stage: Annotated[str, typer.Argument(help="a stage, such as record.scan")],
    shard: Annotated[str, typer.Argument(help="a shard, such as part-00003")],
    config: Config = "demo",
) -> None:
    """Find what a worker printed about a shard: who is at work on it, its error, and the end of the log."""
    from pipeline.commands.launch import find_log

    loaded = load_run(config)
    typer.echo(find_log(loaded, stages_of_run(loaded), stage, shard))
