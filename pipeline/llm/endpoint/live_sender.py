"""Sends requests at once: as many at a time as the endpoint takes, again where they failed, none into an outage."""

import asyncio
import time
from collections.abc import Callable

from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.execution.concurrency import TurnSemaphore
from pipeline.llm.endpoint.circuit import Backoff, Circuit, Health
from pipeline.llm.endpoint.faults import Fault
from pipeline.llm.endpoint.sender import Ask, Endpoint, Outcome, Outgoing, Sender
from pipeline.llm.engine import EngineError

DRAIN_SECONDS = 20.0
"""For which replies in flight are waited for when a stage ends before its time: they are paid for, and stored."""
SHORT_DRAIN = 1.0
"""Seconds of that which nobody has to be told of."""


class LiveSender(Sender):
    """Sends up to `config.concurrency` requests at a time, those of earlier shards first.

    A wait between two tries holds no place in flight. Where the endpoint asks for a pause or is out of order, every request
    waits. A request that was sent is no longer given up with who asked for it, as its reply is paid for.
    """

    def __init__(self, endpoint: Endpoint, backoff: Backoff | None = None) -> None:
        super().__init__(endpoint)
        self._backoff = backoff or Backoff(endpoint.client.secrets.endpoint)
        self.circuit = Circuit(self._backoff, endpoint.config.patience)
        self._places = TurnSemaphore(endpoint.config.concurrency)
        self._sent: dict[bytes, asyncio.Task[Outcome]] = {}
        self.small_question: Callable[[], Ask] | None = None
        """Makes a request that any model can answer, another one each time; it tells whether the endpoint is well."""

    async def _try(self, outgoing: Outgoing, number: int) -> Outcome:
        """Send once, when there is a place, no pause and no outage."""
        task = self._sent.get(outgoing.key) or asyncio.create_task(self._send_in_turn(outgoing, number))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if outgoing.key not in self._sent:
                task.cancel()
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody else looks at it
            raise

    async def _send_in_turn(self, outgoing: Outgoing, number: int, small: bool = False) -> Outcome:
        """small: it is the small question, which in an outage goes before any other request."""
        if number:
            await self._backoff.before_try(number)
        while True:
            await self._backoff.over()
            async with self.circuit.turn() as tries, self._places:
                if self._backoff.paused or (self.circuit.is_open and not tries):
                    continue
                asks_small = tries and not small and self.small_question is not None
                outcome = await self._send(self._small() if asks_small else outgoing)
                fault = outcome if isinstance(outcome, Fault) else None
                self.circuit.record(fault, tried=tries, small=small or asks_small)
            if isinstance(outcome, Fault) and outcome.wait is not None:
                self._backoff.pause_all(outcome.wait)
            if not asks_small:
                return outcome

    async def _send(self, outgoing: Outgoing) -> Outcome:
        """Send once, within the budget. What may have reached the server without a reply counts as much as it could take."""
        endpoint = self._endpoint
        endpoint.cache.check()
        await endpoint.budget.reserve(outgoing.most)
        task = asyncio.current_task()
        assert task is not None
        self._sent[outgoing.key] = task
        outcome: Outcome = Fault("interrupted", tokens=None)
        started = time.perf_counter()
        try:
            outcome = endpoint.read(outgoing, await endpoint.client.post(outgoing.ask.path, outgoing.content))
        except (Fault, EngineError, UserError) as error:
            outcome = error
        finally:
            del self._sent[outgoing.key]
            endpoint.settle(outgoing, outcome, time.perf_counter() - started)
        return outcome

    @property
    def _health(self) -> Health:
        return self.circuit.health

    def _small(self) -> Outgoing:
        assert self.small_question is not None
        return self._endpoint.outgoing(self.small_question())

    async def _look_after(self, fault: Fault) -> None:
        """As above; it is the endpoint's if it does not answer a small question either."""
        if not self.circuit.waits:
            return
        if self.small_question is None:
            if self.circuit.is_open or (self.circuit.known and not fault.answered):
                self.circuit.health = self.circuit.health.after_outage()
            return
        number = 0
        while isinstance(outcome := await self._send_in_turn(self._small(), number, small=True), Fault):
            number += 1
            if not outcome.outage:
                break
        if number:
            self.circuit.health = self.circuit.health.after_outage()

    async def aclose(self) -> None:
        """Wait for replies in flight, DRAIN_SECONDS at most, and give up the others."""
        sent = list(self._sent.values())
        if sent:
            _, open_ones = await asyncio.wait(sent, timeout=SHORT_DRAIN)
            if open_ones:
                tqdm.write(
                    f"waiting up to {DRAIN_SECONDS:.0f} s for {len(open_ones)} replies in flight, as they are paid for; "
                    "another Ctrl-C ends at once"
                )
                await asyncio.wait(open_ones, timeout=DRAIN_SECONDS - SHORT_DRAIN)
            for task in sent:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)
