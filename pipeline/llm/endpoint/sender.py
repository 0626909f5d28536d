"""Requests to an endpoint: each from the response cache if it can, else sent within the budget, tried again, and stored."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.budget import SharedBudget, Tokens, most_tokens
from pipeline.llm.endpoint.circuit import Health
from pipeline.llm.endpoint.client import Client
from pipeline.llm.endpoint.faults import QUOTED, UNLIKE, Fault
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache
from pipeline.llm.engine import EngineError

Json = dict[str, Any]
Outcome = Answer | Fault | EngineError | UserError
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
    """A request as it is sent."""

    ask: Ask
    content: bytes
    """The whole body as JSON."""
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
        return Outgoing(ask, content, sha256(head.encode() + content).digest(), most_tokens(body))

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
        """The reply to a request that is not in the cache; tries that fell into an outage do not count."""
        client, tries = self._endpoint.client, self._endpoint.config.retries + 1
        heard_before, health, number = client.heard, self._health, 0
        while True:
            outcome = await self._try(outgoing, number)
            if isinstance(outcome, Answer):
                return outcome
            if not isinstance(outcome, Fault):
                raise outcome
            number += 1
            if number == tries and outcome.outage and self._health == health:
                await self._look_after(outcome)
            if self._health.outages != health.outages:
                heard_before, health, number = client.heard, self._health, 0
            elif number == tries:
                break
        if not outcome.answered and client.heard == heard_before:  # nobody has heard of it since the first try
            raise UserError(f"{client.secrets.endpoint} does not answer ({outcome}); start it or check engine.base_url")
        raise EngineError(f"no usable reply in {tries} tries; the last one: {outcome}")

    @property
    def _health(self) -> Health:
        """How the endpoint was so far, where that is known."""
        return Health()

    async def _look_after(self, fault: Fault) -> None:  # noqa: B027 - where nothing can be found out
        """Find out whether a fault is the endpoint's and not the request's own; an outage is over when this returns."""

    @abstractmethod
    async def _try(self, outgoing: Outgoing, number: int) -> Outcome:
        """What a try gives, from 0 on; a reply is stored."""
