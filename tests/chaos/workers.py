"""Processes of the pipeline that start in no time, as they are forked from a server that has imported all that they need."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.endpoint_run import KEY, KEY_VARIABLE

SECONDS = 240.0
"""After which a process that has not ended counts as one that hangs."""
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.chaos.warm"])
Hook = Callable[..., None]


@dataclass
class Worker:
    """A process of the pipeline, and what it prints."""

    arguments: tuple[str, ...]
    process: Any
    """Of multiprocessing."""
    log: Path

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def code(self) -> int | None:
        """The exit code, negative where a signal ended it; None while it runs."""
        found: int | None = self.process.exitcode
        return found

    def send(self, number: int) -> bool:
        """Send a signal; whether the process was still running."""
        if self.code() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def let_work(self, seconds: float) -> None:
        """Wait so long, or until it has ended."""
        end = time.monotonic() + seconds
        while self.code() is None and time.monotonic() < end:
            time.sleep(0.002)

    def wait(self) -> int:
        """The exit code, once it has ended.

        Raises:
            TimeoutError: it hangs; it is killed then.
        """
        end = time.monotonic() + SECONDS
        while (code := self.code()) is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"{' '.join(self.arguments)} hangs; it printed:\n{self.printed()}")
            time.sleep(0.005)
        return code

    def printed(self) -> str:
        """All that it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def fork(log: Path, *arguments: str, hook: Hook | None = None, values: Sequence[Any] = ()) -> Worker:
    """`python -m pipeline ARGUMENTS` in a process with all its imports done.

    Args:
        log: file for what it prints.
        hook: called in the process with `values` before the command; a function of a module.
    """
    return fork_function(log, _command, arguments, hook, values)


def fork_function(
    log: Path, work: Callable[..., None], arguments: Sequence[str], hook: Hook | None, values: Sequence[Any]
) -> Worker:
    """The same with a function of a module, called with the arguments, in place of the command line."""
    process = _FORKS.Process(target=_work, args=(work, tuple(arguments), str(log), hook, tuple(values)))
    log.touch()
    process.start()
    return Worker(tuple(arguments), process, log)


def _work(
    work: Callable[..., None], arguments: Sequence[str], log: str, hook: Hook | None, values: Sequence[Any]
) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, buffering=1) for number in (1, 2))
    os.environ[KEY_VARIABLE] = KEY
    if hook:
        hook(*values)
    work(*arguments)


def _command(*arguments: str) -> None:
    from pipeline.__main__ import main

    sys.argv = ["neurogloss", *arguments]
    main()
