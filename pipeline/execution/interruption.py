"""Signals that end the process: the first as Ctrl-C does, so that nothing paid for is lost; a second one at once.

Python makes the first SIGINT a KeyboardInterrupt. Where a stage waits for servers, asyncio cancels the stage instead: no
new request starts, and those in flight have some seconds to be answered and stored (`pipeline.llm.endpoint.live_sender`).
The second SIGINT interrupts that too. `interruptible` makes other signals do the same.

Python drops an exception that is raised while an object is deleted, and with it the signal. So a signal also has no further shard begin.
"""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from pipeline.execution.stopping import STOPPING

SIGNALS = (signal.SIGTERM,)
"""Sent by Slurm, containers and systemd some seconds before they kill."""


class Interruption:
    """Which signal came first."""

    def __init__(self) -> None:
        self.signal: int = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """Of a process that ends by the signal, as shells tell it."""
        return 128 + self.signal

    def interrupt(self, number: int, _frame: FrameType | None = None) -> None:
        """Handle a signal."""
        self.signal = number
        STOPPING.set()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)


@contextmanager
def interruptible(signals: Sequence[signal.Signals] = SIGNALS) -> Iterator[Interruption]:
    """Have each of these signals do what Ctrl-C does, until the block ends; has no effect outside of the main thread."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: it goes on being of no effect
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {number: signal.signal(number, interruption.interrupt) for number in signals}
    try:
        yield interruption
    except SystemExit as ended:
        if ended.code == 128 + signal.SIGINT:  # how typer passes on an interrupt
            sys.stderr.write("neurogloss: interrupted; the same command carries on\n")
            raise SystemExit(interruption.exit_code) from None
        raise
    finally:
        STOPPING.clear()
        for number, handler in before.items():
            signal.signal(number, handler)
