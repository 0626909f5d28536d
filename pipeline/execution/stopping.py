"""How a worker is asked to stop: SIGUSR1 lets it finish the shards in hand, SIGTERM has it give them back at once."""

import contextlib
import ctypes
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pipeline.storage.claims import LAUNCHED

STOPPING = threading.Event()
"""Set once no further shard is to be begun."""
TERMINATED = 128 + signal.SIGTERM
PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Within it this process stops in order; a launched one does so too when its launcher is killed (on Linux)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    STOPPING.clear()
    handlers = {signal.SIGUSR1: _finish} if hasattr(signal, "SIGUSR1") else {}
    if (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):  # else it ends the process as Ctrl-C does, which gives back too
        handlers[signal.SIGTERM] = _give_back
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    if LAUNCHED:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give_back(*_: int | FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut off the giving back
    STOPPING.set()
    raise SystemExit(TERMINATED)


def _finish(*_: int | FrameType | None) -> None:
    STOPPING.set()
