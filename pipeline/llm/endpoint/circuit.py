"""When a request may be sent: waits between its tries, pauses that an endpoint asks for, and outages.

An endpoint is out of order after IN_A_ROW failures in a row, of any requests: a status such as 503, no connection, no reply
in time. Then all requests wait, and one of them tries, by a small question. The waits between these tries grow. The first
that is answered ends the outage. If that is the very first, requests have failed by themselves, and it was none.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.llm.endpoint.faults import Fault
from pipeline.terminal_text import safe

FIRST = 0.5
LONGEST = 60.0
"""Seconds of a wait before the second try of a request at most, and before any later one."""
WORTH_TELLING = 10.0
"""Seconds from which on a person is told that the endpoint wants to be left alone."""
IN_A_ROW = 5
LONGEST_PAUSE = 30.0
"""Seconds between two tries in an outage at most."""
UNKNOWN_PATIENCE = 20.0
"""Seconds for which an endpoint is waited for that has never answered, as its address may be wrong."""


class Backoff:
    """Waits that grow, and a pause that all requests to an endpoint share."""

    def __init__(
        self,
        endpoint: str,
        first: float = FIRST,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.endpoint, self.first, self.clock, self.sleep = endpoint, first, clock, sleep
        self._until = 0.0

    async def before_try(self, number: int) -> None:
        """Wait before a request's try `number` (from 1): up to twice as long as before the last, drawn at random."""
        await self.sleep(random.uniform(0, min(LONGEST, self.first * 2 ** (min(number, 20) - 1))))

    def pause_all(self, seconds: float) -> None:
        """No request is to be sent for so many seconds."""
        until = self.clock() + seconds
        if seconds >= WORTH_TELLING and until > self._until + WORTH_TELLING:
            tqdm.write(f"{self.endpoint} asks to wait {seconds:.0f} s before the next request; waiting")
        self._until = max(self._until, until)

    @property
    def paused(self) -> bool:
        return self.clock() < self._until

    async def over(self) -> None:
        """Wait until there is no pause; those who wait do not all start at once."""
        while (left := self._until - self.clock()) > 0:
            await self.sleep(left + random.uniform(0, min(1.0, 0.1 * left)))


class Health(NamedTuple):
    """How an endpoint was so far."""

    answers: int = 0
    """Requests that it answered, be it with a refusal."""
    outages: int = 0
    """Outages that are over."""

    def answered(self) -> "Health":
        """One answer later."""
        return Health(self.answers + 1, self.outages)

    def after_outage(self) -> "Health":
        """One outage later."""
        return Health(self.answers, self.outages + 1)


class Circuit:
    """Keeps requests back while an endpoint is out of order."""

    def __init__(self, backoff: Backoff, patience: float) -> None:
        """patience: seconds of an outage after which the stage stops; 0 keeps no request back."""
        self._backoff, self._patience = backoff, patience
        self.waits = patience > 0
        """Whether an outage is waited for; else each request that fails is tried again by itself."""
        self.known = False
        """Whether the endpoint has ever answered."""
        self.health = Health()
        self._failures = self._trials = 0
        self._next = 0.0
        self._since: float | None = None
        self._trying = False
        self._changed = asyncio.Event()
        self._said = ""

    @property
    def is_open(self) -> bool:
        """Whether the endpoint is out of order."""
        return self.waits and self._failures >= IN_A_ROW

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait until a request may be sent; gives whether it is the one that tries whether an outage is over.

        Raises:
            UserError: the outage lasts for longer than the patience.
        """
        tries = await self._may_try()
        try:
            yield tries
        finally:
            if tries:
                self._trying = False
                self._wake()

    def record(self, fault: Fault | None, *, tried: bool, small: bool = False) -> None:
        """Take in how a request went.

        Args:
            fault: what it met; None where the endpoint answered, be it with a refusal.
            tried: whether it was the one that tries.
            small: whether it was the small question. Where that alone is answered, patience comes to its end all the same.
        """
        self.known = self.known or fault is None or fault.answered
        now = self._backoff.clock()
        if fault is None or not fault.outage:
            self.health = self.health.answered()
            if self.is_open:
                tqdm.write(f"{self._backoff.endpoint} answers again")
                self._wake()
                if self._trials > 1:
                    self.health = self.health.after_outage()
            self._failures = self._trials = 0
            self._since = self._since if small else None
            return
        self._since = now if self._since is None else self._since
        self._failures, self._said = self._failures + 1, str(fault)
        if self.waits and self._failures == IN_A_ROW:
            tqdm.write(
                f"{self._backoff.endpoint} is out of order ({safe(str(fault))}); all requests wait until it answers, "
                f"{self._waits:.0f} s at most (engine.patience)"
            )
        if tried or self._failures == IN_A_ROW:
            self._next = now + min(LONGEST_PAUSE, 2 * self._backoff.first * 2 ** min(self._trials, 20))
            self._trials += 1

    @property
    def _waits(self) -> float:
        """Seconds of an outage that are waited for."""
        return self._patience if self.known else min(self._patience, UNKNOWN_PATIENCE)

    async def _may_try(self) -> bool:
        """False where the endpoint is well; True when this request may try whether it is well again."""
        while self.is_open:
            now = self._backoff.clock()
            since = now if self._since is None else self._since
            if now - since >= self._waits:
                raise UserError(self._problem(now - since))
            if self._trying:
                await self._changed.wait()
            elif (left := min(self._next, since + self._waits) - now) > 0:
                await self._backoff.sleep(left)
            else:
                self._trying = True
                return True
        return False

    def _problem(self, seconds: float) -> str:
        endpoint = self._backoff.endpoint
        if not self.known:
            return f"{endpoint} does not answer ({self._said}); start it or check engine.base_url"
        return (
            f"{endpoint} has been out of order for {seconds:.0f} s ({self._said}); see to it, then run the same command again, "
            "which carries on and pays for no reply twice. A higher engine.patience waits longer"
        )

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
