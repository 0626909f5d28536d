"""Waits between the tries of a request, and of all requests where the endpoint asks for it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tqdm import tqdm

FIRST = 0.5
LONGEST = 60.0
"""Seconds of a wait before the second try at most, and before any later one."""
WORTH_TELLING = 10.0
"""Seconds from which on a person is told that the endpoint wants to be left alone."""


class Backoff:
    """Waits that grow, and a pause that all requests to an endpoint share."""

    def __init__(
        self,
        endpoint: str,
        first: float = FIRST,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._endpoint, self._first, self._clock, self._sleep = endpoint, first, clock, sleep
        self._until = 0.0

    async def before_try(self, number: int) -> None:
        """Wait before a request's try `number` (from 1): up to twice as long as before the last, drawn at random."""
        await self._sleep(random.uniform(0, min(LONGEST, self._first * 2 ** (number - 1))))

    def pause_all(self, seconds: float) -> None:
        """No request is to be sent for so many seconds."""
        until = self._clock() + seconds
        if seconds >= WORTH_TELLING and until > self._until + WORTH_TELLING:
            tqdm.write(f"{self._endpoint} asks to wait {seconds:.0f} s before the next request; waiting")
        self._until = max(self._until, until)

    @property
    def paused(self) -> bool:
        return self._clock() < self._until

    async def over(self) -> None:
        """Wait until there is no pause; those who wait do not all start at once."""
        while (left := self._until - self._clock()) > 0:
            await self._sleep(left + random.uniform(0, min(1.0, 0.1 * left)))
