"""Requests to an endpoint: each from the response cache if it can, else sent within the budget, tried again, and stored."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from tqdm import tqdm

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.concurrency import TurnSemaphore
from pipeline.llm.endpoint.budget import SharedBudget, Tokens, most_tokens
from pipeline.llm.endpoint.circuit import Backoff, Circuit
from pipeline.llm.endpoint.client import Client
from pipeline.llm.endpoint.faults import QUOTED, UNLIKE, Fault
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache
from pipeline.llm.engine import EngineError

Json = dict[str, Any]
Outcome = Answer | Fault | EngineError | UserError
DRAIN_SECONDS = 20.0
"""For which replies in flight are waited for when a stage ends before its time: they are paid for, and stored."""
SHORT_DRAIN = 1.0
"""Seconds of that which nobody has to be told of."""
MOST_TOKENS = 2**40
"""A count of tokens above this is no count."""


@dataclass(frozen=True)
class Ask:
    """One request to an endpoint."""

    path: str
    """CHAT or PLAIN."""
    body: Mapping[str, Any]
    """Lacks only the model and the fields of the run file."""
    keep: Callable[[Json], Json] = dict
    """Reduces a reply to what is read of it; what it raises on another reply than was asked for counts as a fault."""
    attempt: int = 0
    """Tells requests with the same body apart in the cache."""


@dataclass(frozen=True)
class Outgoing:
    """A request with the whole body as it is sent."""

    ask: Ask
    body: Json
    content: bytes
    """The body as JSON."""
    key: bytes
    """Of its reply in the cache."""
    most: Tokens
    """What it could take."""


@dataclass
class Account:
    """What the requests of this process have taken."""

    requests: int = 0
    failed: int = 0
    faults: int = 0
    """Those of the failed ones that may succeed when they are sent again."""
    tokens: int = 0
    cost: float | None = 0.0
    """None where the price is not known."""


@dataclass(frozen=True)
class Endpoint:
    """What all requests of a worker to an endpoint share; it keeps account of what they take."""

    config: LanguageModel
    client: Client
    cache: ResponseCache
    budget: SharedBudget
    account: Account = field(default_factory=Account)

    def outgoing(self, ask: Ask) -> Outgoing:
        """A request with all its fields.

        They keep their order: servers have a model write the properties of a schema in the order in which it lists them.
        """
        body = {"model": self.config.model, **ask.body, **self.config.body}
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        head = f"{self.client.secrets.endpoint}\n{ask.path}\n{ask.attempt}\n"
        return Outgoing(ask, body, content, sha256(head.encode() + content).digest(), most_tokens(body))

    def read(self, outgoing: Outgoing, reply: Any) -> Answer:
        """What is kept of a reply, with the tokens that it took, as many as it could where the endpoint does not say.

        Raises:
            Fault: it is not what was asked for.
        """
        usage = reply.get("usage") if isinstance(reply, dict) else None
        told = [usage.get(f"{kind}_tokens") if isinstance(usage, dict) else None for kind in ("prompt", "completion")]
        read, written = (count if isinstance(count, int) and 0 <= count < MOST_TOKENS else None for count in told)
        tokens = read or outgoing.most[0], outgoing.most[1] if written is None else written
        try:
            return Answer(outgoing.ask.keep(reply), *tokens)
        except UNLIKE as error:
            words = self.client.secrets.redact(f"{type(error).__name__}: {error}")[:QUOTED]
        raise Fault(f"a reply without what was asked for: {words}", tokens=tokens)

    def settle(self, outgoing: Outgoing, outcome: Outcome, seconds: float = 0.0) -> None:
        """Store a reply, or what a try took for nothing, and give back what was reserved beyond that."""
        took = (0, 0)
        if isinstance(outcome, Answer):
            took = outcome.prompt_tokens, outcome.completion_tokens
        elif isinstance(outcome, Fault):
            took = outgoing.most if outcome.tokens is None else outcome.tokens
        model, cost, account = self.config.model, self.config.cost(*took), self.account
        account.requests += 1
        account.failed += not isinstance(outcome, Answer)
        account.faults += isinstance(outcome, Fault)
        account.tokens += sum(took)
        account.cost = None if cost is None or account.cost is None else account.cost + cost
        try:
            if isinstance(outcome, Answer):
                self.cache.put(outgoing.key, outcome, model=model, seconds=seconds, cost=cost)
            elif any(took):
                self.cache.put_lost(*took, model=model, why=str(outcome), cost=cost)
        finally:
            self.budget.settle(outgoing.most, took)

    async def aclose(self) -> None:
        """Give back the connections, what is left of the budget to other workers, and the response cache."""
        await self.client.aclose()
        self.budget.close()
        self.cache.close()


class Sender(ABC):
    """Answers requests; two equal ones at a time are sent once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._flights: dict[bytes, asyncio.Future[Answer]] = {}

    async def ask(self, ask: Ask) -> Answer:
        """What `ask.keep` leaves of the reply.

        Raises:
            PromptTooLong: the prompt and its replies do not fit the context.
            Rejected: the endpoint does not take the request as it is.
            EngineError: no usable reply after all retries.
            NotFound: no such model or path.
            UserError: nothing can be asked: wrong key, no server, no budget.
        """
        outgoing = self._endpoint.outgoing(ask)
        while (flight := self._flights.get(outgoing.key)) is not None:
            await asyncio.wait([flight])
            if not flight.cancelled():
                return flight.result()
        if (known := self._endpoint.cache.get(outgoing.key)) is not None:
            return known
        flight = self._flights[outgoing.key] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._fetch(outgoing)
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # it need not be that anybody else waits for it
            raise
        else:
            flight.set_result(answer)
            return answer
        finally:
            flight.cancel()
            del self._flights[outgoing.key]

    async def _fetch(self, outgoing: Outgoing) -> Answer:
        """The reply to a request that is not in the cache."""
        client, tries = self._endpoint.client, self._endpoint.config.retries + 1
        heard_before, number = client.heard, 0
        while True:
            outcome = await self._try(outgoing, number)
            if isinstance(outcome, Answer):
                return outcome
            if not isinstance(outcome, Fault):
                raise outcome
            number += 1
            if number < tries:
                continue
            if not outcome.outage or client.heard != heard_before or not await self._was_out_of_order(outcome):
                break
            heard_before, number = client.heard, 0
        if not outcome.answered and client.heard == heard_before:  # nobody has heard of it since the first try
            raise UserError(f"{client.secrets.endpoint} does not answer ({outcome}); start it or check engine.base_url")
        raise EngineError(f"no usable reply in {tries} tries; the last one: {outcome}")

    async def _was_out_of_order(self, fault: Fault) -> bool:  # noqa: ARG002 - for those that can tell
        """Whether a fault was the endpoint's, which is well again when this returns, and not the request's own."""
        return False

    @abstractmethod
    async def _try(self, outgoing: Outgoing, number: int) -> Outcome:
        """What a try gives, from 0 on; a reply is stored."""


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

    async def _send_in_turn(self, outgoing: Outgoing, number: int) -> Outcome:
        if number:
            await self._backoff.before_try(number)
        while True:
            await self._backoff.over()
            async with self.circuit.turn() as tries, self._places:
                if self._backoff.paused or (self.circuit.is_open and not tries):
                    continue
                outcome = await self._send(outgoing)
                self.circuit.record(outcome if isinstance(outcome, Fault) else None, tried=tries)
                break
        if isinstance(outcome, Fault) and outcome.wait is not None:
            self._backoff.pause_all(outcome.wait)
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
            outcome = endpoint.read(outgoing, await endpoint.client.post(outgoing.ask.path, outgoing.body))
        except (Fault, EngineError, UserError) as error:
            outcome = error
        finally:
            del self._sent[outgoing.key]
            endpoint.settle(outgoing, outcome, time.perf_counter() - started)
        return outcome

    async def _was_out_of_order(self, fault: Fault) -> bool:
        """It was if a small question fails too; that is asked until it is answered."""
        if self.small_question is None:
            return self.circuit.is_open or (self.circuit.known and not fault.answered)
        question, number = self._endpoint.outgoing(self.small_question()), 0
        while isinstance(outcome := await self._try(question, number), Fault) and outcome.outage:
            number += 1
        return number > 0

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
