"""How a worker is asked to stop: SIGUSR1 lets it finish the shards in hand, SIGTERM has it give them back at once."""

import contextlib
import ctypes
import signal
import threading
from types import FrameType

from pipeline.storage.claims import LAUNCHED

STOPPING = threading.Event()
"""Set once no further shard is to be begun."""
TERMINATED = 128 + signal.SIGTERM
PR_SET_PDEATHSIG = 1


def heed_signals() -> None:
    """From here on this process stops in order; a launched one does so too when its launcher is killed (on Linux)."""
    if threading.current_thread() is threading.main_thread():
        if (
            signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        ):  # else it ends the process as Ctrl-C does, which gives back too
            signal.signal(signal.SIGTERM, _give_back)
        if hasattr(signal, "SIGUSR1"):
            signal.signal(signal.SIGUSR1, _finish)
        if LAUNCHED:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _give_back(*_: int | FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would cut off the giving back
    STOPPING.set()
    raise SystemExit(TERMINATED)


def _finish(*_: int | FrameType | None) -> None:
    STOPPING.set()
