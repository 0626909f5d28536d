"""Sends each request at once: waits for a place in flight, and tries again after a fault."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.execution.concurrency import TurnSemaphore
from pipeline.llm.endpoint.faults import Fault
from pipeline.llm.endpoint.response_cache import Answer
from pipeline.llm.endpoint.sender import Endpoint, Outcome, Outgoing, Sender
from pipeline.llm.engine import EngineError

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


class LiveSender(Sender):
    """Sends up to `config.concurrency` requests at a time, those of earlier shards first.

    A wait between two tries holds no place in flight. Where the endpoint asks for a pause, every request keeps it.
    """

    def __init__(self, endpoint: Endpoint, backoff: Backoff | None = None) -> None:
        super().__init__(endpoint)
        self._backoff = backoff or Backoff(endpoint.client.secrets.endpoint)
        self._places = TurnSemaphore(endpoint.config.concurrency)

    async def _fetch(self, outgoing: Outgoing) -> Answer:
        client, tries = self._endpoint.client, self._endpoint.config.retries + 1
        heard_before = client.heard
        fault = Fault("not sent")
        for number in range(tries):
            if number:
                await self._backoff.before_try(number)
            outcome = await self._send_in_turn(outgoing)
            if isinstance(outcome, Answer):
                return outcome
            if not isinstance(outcome, Fault):
                raise outcome
            fault = outcome
            if fault.wait is not None:
                self._backoff.pause_all(fault.wait)
        if not fault.answered and client.heard == heard_before:  # nobody has heard of it since the first try
            raise UserError(f"{client.secrets.endpoint} does not answer ({fault}); start it or check engine.base_url")
        raise EngineError(f"no usable reply in {tries} tries; the last one: {fault}")

    async def _send_in_turn(self, outgoing: Outgoing) -> Outcome:
        """Send once, when there is a place and no pause."""
        while True:
            await self._backoff.over()
            async with self._places:
                if not self._backoff.paused:
                    return await self._send(outgoing)

    async def _send(self, outgoing: Outgoing) -> Outcome:
        """Send once, within the budget. What may have reached the server without a reply counts as much as it could take."""
        endpoint = self._endpoint
        endpoint.cache.check()
        reserved = await endpoint.reserve(outgoing)
        outcome: Outcome = Fault("interrupted", tokens=None)
        took, started = reserved.most, time.perf_counter()
        try:
            reply = await endpoint.client.post(outgoing.ask.path, outgoing.body)
            outcome = endpoint.read(outgoing, reply, reserved.most)
        except (Fault, EngineError, UserError) as error:
            outcome = error
        finally:
            try:
                took = endpoint.store(outgoing, outcome, reserved.most, time.perf_counter() - started)
            finally:
                endpoint.budget.settle(reserved, took)
        return outcome
