"""Requests to an endpoint: each from the response cache if it can, else sent within the budget, tried again, and stored."""

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from tqdm import tqdm

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.concurrency import TurnSemaphore
from pipeline.llm.endpoint.budget import SharedBudget, Tokens, most_tokens
from pipeline.llm.endpoint.client import Client
from pipeline.llm.endpoint.faults import QUOTED, UNLIKE, Fault
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache
from pipeline.llm.engine import EngineError

Json = dict[str, Any]
Outcome = Answer | Fault | EngineError | UserError
FIRST = 0.5
LONGEST = 60.0
"""Seconds of a wait before the second try at most, and before any later one."""
WORTH_TELLING = 10.0
"""Seconds from which on a person is told that the endpoint wants to be left alone."""
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
        heard_before = client.heard
        fault = Fault("not sent")
        for number in range(tries):
            outcome = await self._try(outgoing, number)
            if isinstance(outcome, Answer):
                return outcome
            if not isinstance(outcome, Fault):
                raise outcome
            fault = outcome
        if not fault.answered and client.heard == heard_before:  # nobody has heard of it since the first try
            raise UserError(f"{client.secrets.endpoint} does not answer ({fault}); start it or check engine.base_url")
        raise EngineError(f"no usable reply in {tries} tries; the last one: {fault}")

    @abstractmethod
    async def _try(self, outgoing: Outgoing, number: int) -> Outcome:
        """What a try gives, from 0 on; a reply is stored."""


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

    async def _try(self, outgoing: Outgoing, number: int) -> Outcome:
        """Send once, when there is a place and no pause."""
        if number:
            await self._backoff.before_try(number)
        while True:
            await self._backoff.over()
            async with self._places:
                if not self._backoff.paused:
                    outcome = await self._send(outgoing)
                    break
        if isinstance(outcome, Fault) and outcome.wait is not None:
            self._backoff.pause_all(outcome.wait)
        return outcome

    async def _send(self, outgoing: Outgoing) -> Outcome:
        """Send once, within the budget. What may have reached the server without a reply counts as much as it could take."""
        endpoint = self._endpoint
        endpoint.cache.check()
        await endpoint.budget.reserve(outgoing.most)
        outcome: Outcome = Fault("interrupted", tokens=None)
        started = time.perf_counter()
        try:
            outcome = endpoint.read(outgoing, await endpoint.client.post(outgoing.ask.path, outgoing.body))
        except (Fault, EngineError, UserError) as error:
            outcome = error
        finally:
            endpoint.settle(outgoing, outcome, time.perf_counter() - started)
        return outcome
