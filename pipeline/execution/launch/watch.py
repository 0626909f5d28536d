"""One progress display for the workers of a launch, and what their ends mean."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import Launch
from pipeline.execution.progress import ShardProgress, say
from pipeline.execution.series import Progress
from pipeline.execution.survey import Stages, survey

SHARE_OF_LOOKING = 0.05
"""Of the time, at most so much goes into reading the footers of shards."""
TAIL = 12
"""Lines of a log that are shown where a worker failed."""

Codes = Mapping[str, int | None]
"""Exit codes of workers by name; None while one is at work."""


def watch(config: RunConfig, stages: Stages, names: Sequence[str], codes: Callable[[], Codes]) -> Codes:
    """Show how far the named stages are, until all workers have ended; gives their exit codes."""
    bar: _Bar | None = None
    shown = ""
    try:
        while None in (now := codes()).values():
            began = time.monotonic()
            current = _current(config, stages, names)
            if current and current.stage.name != shown:
                if bar:
                    bar.close(finished=True)
                shown = current.stage.name
                bar = _Bar(current)
            if bar and current:
                bar.reach(len(current.done))
            time.sleep(max(0.5, (time.monotonic() - began) / SHARE_OF_LOOKING))
        return now
    finally:
        if bar:
            bar.close(finished=_current(config, stages, names) is None)


class _Bar:
    """The bar of one stage; it is closed when the next one is at work."""

    def __init__(self, progress: Progress) -> None:
        self._total = len(progress.shards)
        self._bar = ShardProgress(progress.stage.title, self._total, len(progress.done))

    def reach(self, done: int) -> None:
        self._bar.reach(done)
        self._bar.note("")

    def close(self, *, finished: bool) -> None:
        if finished:
            self._bar.reach(self._total)
        self._bar.__exit__(None, None, None)


def _current(config: RunConfig, stages: Stages, names: Sequence[str]) -> Progress | None:
    """The first of the stages that is not finished and can be worked at."""
    with contextlib.suppress(UserError):  # the workers tell it
        found = survey(config, stages)
        return next((found[name] for name in names if found[name].ready and not found[name].finished), None)
    return None


def conclude(
    launch: Launch, config: RunConfig, stages: Stages, names: Sequence[str], codes: Codes, report: Callable[[], str]
) -> int:
    """Say how the workers of a launch ended; gives the exit code: 0, 1, or what a worker ended with."""
    found = survey(config, stages)
    for worker, code in codes.items():
        if code is not None and code not in (0, 3):
            log = launch.logs / f"{worker}.log"
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            say(f"{worker} {how}; its last lines, of {log}:\n{_tail(log)}")
    if all(progress.finished for progress in found.values()):
        sys.stdout.write(report())
    failed = sum(found[name].failed_rows for name in names)
    if all(found[name].finished for name in names):
        if failed:
            say(f"{failed} rows failed; their column `error` says why")
        return 1 if failed else 0
    say("The run is not finished; the same command carries on.")
    return next((code for code in codes.values() if code is not None and code > 0), 1)


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-TAIL:])
    return "  (nothing)"
