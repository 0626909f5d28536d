"""Launch a run, end what was launched, and find the log of a shard."""

import os
import re
import signal
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.commands.run import check_stages, prepare_redo
from pipeline.config import RunConfig
from pipeline.errors import UserError, nearest
from pipeline.execution.launch.frozen import Launch, launches, new_launch
from pipeline.execution.progress import say
from pipeline.execution.shared_shards import open_claims
from pipeline.execution.survey import Stages, survey
from pipeline.storage.claims import is_alive, this_process
from pipeline.storage.stores import scratch

ENGINES = ("local", "slurm", "ray")
LINES = 20
"""Lines of a log that are shown."""


def launch_run(
    config: RunConfig,
    stages: Stages,
    names: Sequence[str],
    engine: str,
    arguments: Sequence[str],
    redo: str = "",
    report: Callable[[], str] = str,
) -> int:
    """Have workers finish the named stages; gives the exit code.

    Args:
        engine: local, slurm or ray.
        arguments: the command of a worker that does them, without its run file.
        redo: as in `run_pipeline`; it is done once, before the workers start.

    Raises:
        UserError: no such engine, or the input is at fault.
    """
    if engine not in ENGINES:
        raise UserError(f"--launch {engine!r}; {nearest(engine, list(ENGINES))}")
    prepare_redo(config, stages, redo)
    missing = [name for name in names if not survey(config, stages)[name].finished]
    if not missing:
        say(f"Everything is done in {config.root}: nothing to compute.")
        return 0
    check_stages(config, stages, missing)
    launch = new_launch(config, engine)
    if engine == "slurm":
        from pipeline.execution.launch.slurm import launch_on_slurm

        return launch_on_slurm(launch, config, stages, [name for name in missing if stages[name].takes_part(config)])
    if engine == "ray":
        from pipeline.execution.launch.ray import launch_on_ray as start
    else:
        from pipeline.execution.launch.local import launch_locally as start
    return start(launch, config, stages, names, arguments, report)


def cancel(config: RunConfig) -> str:
    """End what was launched and has not ended; gives what was done, in words."""
    from pipeline.execution.launch.slurm import cancel_jobs, queue_of

    done = []
    for launch in launches(config.root):
        if launch.engine == "slurm":
            if waiting := sorted({line[0].split("_")[0] for line in queue_of(list(launch.jobs.values()))}, key=int):
                cancel_jobs(waiting)
                done.append(f"cancelled {len(waiting)} jobs of {launch.folder.name}: {', '.join(waiting)}")
        elif launch.owner.machine != this_process().machine:
            done.append(
                f"{launch.folder.name} was launched on {launch.owner.host}; where it is at work, cancel it there"
            )
        elif is_alive(launch.owner):
            os.kill(launch.owner.pid, signal.SIGTERM)
            done.append(f"told process {launch.owner.pid} of {launch.folder.name} to end its workers")
    return "\n".join(done) or f"Nothing that was launched for {config.root} is at work."


def find_log(config: RunConfig, stages: Stages, stage: str, shard: str) -> str:
    """The log of a shard: its file, and its last lines that concern it.

    Raises:
        UserError: no such stage, or no log that names the shard.
    """
    if stage not in stages:
        raise UserError(f"no stage {stage!r}; {nearest(stage, list(stages))}")
    parts = []
    note = config.root / "_failed" / f"{stage}-{shard}.json"
    if note.is_file():
        parts.append(f"{note}:\n{note.read_text(encoding='utf-8')}")
    with open_claims(config) as claims:
        owner = claims.held(stage).get(shard)
    if owner:
        parts.append(f"{owner.host}, process {owner.pid}, is at work on it{f' ({owner.job})' if owner.job else ''}.")
        if owner.log and (log := Path(owner.log)).is_file():
            parts.append(_shown(log))
    elif found := _log_with(launches(config.root), f"{stage} {shard}"):
        parts.append(_shown(found, f"{stage} {shard}"))
    if not parts:
        raise UserError(
            f"no log names {stage} {shard}; logs are kept of what was launched (run --launch), in {scratch(config.root) / '_launch'}"
        )
    return "\n\n".join(parts)


def _log_with(found: Sequence[Launch], words: str) -> Path | None:
    """The newest log with a line about a shard."""
    line = re.compile(rf"(^|\s){re.escape(words)}\b")
    for launch in found:
        for log in sorted(launch.logs.glob("*.log"), key=lambda file: file.stat().st_mtime, reverse=True):
            with log.open(encoding="utf-8", errors="replace") as lines:
                if any(map(line.search, lines)):
                    return log
    return None


def _shown(log: Path, words: str = "") -> str:
    """The last lines of a log, up to the last one with these words."""
    kept: deque[str] = deque(maxlen=LINES)
    shown: list[str] = []
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            kept.append(line.rstrip("\n"))
            if words and words in line:
                shown = list(kept)
    return "\n".join([f"{log}:", *(shown or kept)])
