"""An end to calls of other people's code that do not come back."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TooSlow(BaseException):
    """A call took longer than it may; no Exception, so that what is called does not take it for an error of its own."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow where a block takes longer.

    It is interrupted where that can be done: in the main thread, on systems with SIGALRM, and as soon as Python code runs
    or a wait ends. Elsewhere its end is waited for.
    """
    started = time.monotonic()
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        with _interrupted(seconds):
            yield
    else:
        yield
    if time.monotonic() - started > seconds:
        raise TooSlow


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
