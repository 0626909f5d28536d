"""What a run says while it works: a progress bar on a terminal, elsewhere a line with the time now and then."""

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from pipeline.terminal_text import safe_lines

SECONDS_BETWEEN_LINES = 30.0


def say(message: str) -> None:
    """Print a message on standard output, above a progress bar where there is one; nothing in it is obeyed by a terminal."""
    message = safe_lines(message)
    tqdm.write(
        message if sys.stdout.isatty() else "\n".join(f"{_clock()} {line}".rstrip() for line in message.split("\n"))
    )


def _clock() -> str:
    return time.strftime("%H:%M:%S")


class ShardProgress:
    """Counts the shards of a stage, on standard error."""

    def __init__(self, title: str, total: int, done: int, *, show: bool = True) -> None:
        """total, done: shards in all, and those that were finished before."""
        self._title, self._total, self._done, self._before = title, total, done, done
        self._bar: tqdm[Any] = tqdm(
            desc=title, unit="shard", total=total, initial=done, disable=not (show and sys.stderr.isatty())
        )
        self._show = show and not sys.stderr.isatty()
        self._started = self._told = time.monotonic()
        self._said = self._line = ""

    def __enter__(self) -> "ShardProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._show:
            self._tell()

    def step(self) -> None:
        """One shard has ended."""
        self._done += 1
        self._bar.update()
        self.note(self._said)

    def reach(self, done: int) -> None:
        """So many shards are done, those of other workers among them."""
        if done > self._done:
            self._bar.update(done - self._done)
            self._done = done

    def note(self, said: str) -> None:
        """Show what the requests of the stage have taken so far."""
        self._said = said
        self._bar.set_postfix_str(said)
        if self._show and time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        spent, made = self._told - self._started, self._done - self._before
        left = 0.0 if self._said or not made else spent / made * (self._total - self._done)
        end = self._said or (f"{tqdm.format_interval(left)} left" if left else "")
        line = f"{self._title}: {self._done} of {self._total} shards in {tqdm.format_interval(spent)}{', ' * bool(end)}{end}"
        if line != self._line:
            print(f"{_clock()} {line}", file=sys.stderr, flush=True)  # noqa: T201
        self._line = line
