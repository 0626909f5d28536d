"""What a forked process of the pipeline does to itself: it dies at a certain call, lives by another clock, or may write little.

The pipeline knows nothing of it; functions of `os` and `time` are replaced before it starts.
"""

import builtins
import io
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

CALLS = ("fsync", "replace", "link", "unlink", "open")
"""Calls that a process can be told to die at: between them lies all that makes a file whole and gives it its name."""


def die_at(call: str, number: int, after: bool, delay: float) -> None:
    """Kill this process by SIGKILL at its n-th call of a function.

    Args:
        call: one of CALLS; `open` is opening a file to write it.
        after: once the call has done its work, else before.
        delay: seconds that pass in between, during which the process goes on.
    """
    left = [number]

    def count() -> bool:
        left[0] -= 1
        return left[0] == 0

    def dying(function: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            chosen = counts(*arguments, **named) and count()
            if chosen and not after:
                _die(delay)
            try:
                return function(*arguments, **named)
            finally:
                if chosen and after:
                    _die(delay)

        return called

    if call == "open":
        writing = lambda _file, mode="r", *_, **__: any(letter in mode for letter in "wax")  # noqa: E731
        builtins.open = io.open = dying(io.open, writing)
    else:
        setattr(os, call, dying(getattr(os, call), lambda *_, **__: True))


def _die(delay: float) -> None:
    if delay:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def live_by_another_clock(days: float, seed: int) -> None:
    """Have the time of day be some days off, and jump by up to as many days again each time it is asked for."""
    true_time, jumps = time.time, random.Random(seed)
    time.time = lambda: true_time() + 86400 * days * jumps.uniform(0.0, 2.0)


def write_little(size: int) -> None:
    """Have every file end at so many bytes, as a quota does; for where no small disk can be mounted."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
