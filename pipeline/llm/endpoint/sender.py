"""Requests to an endpoint: each from the response cache if it can, else sent, within the budget, and stored."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.budget import Reservation, SharedBudget, Tokens, prompt_bound
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
    tokens_at_most: int
    """Of all replies together."""
    keep: Callable[[Json], Json] = dict
    """Reduces a reply to what is read of it; what it raises on another reply than was asked for counts as a fault."""
    attempt: int = 0
    """Tells requests with the same body apart in the cache."""


@dataclass(frozen=True)
class Outgoing:
    """A request with the whole body as it is sent, and the key of its reply in the cache."""

    ask: Ask
    body: Json
    content: bytes
    """The body as JSON."""
    key: bytes


@dataclass
class Account:
    """What the requests of this process have taken."""

    requests: int = 0
    failed: int = 0
    tokens: int = 0
    cost: float | None = 0.0
    """None where the price is not known."""

    def add(self, outcome: Outcome, took: Tokens, cost: float | None) -> None:
        """Add one request."""
        self.requests += 1
        self.failed += not isinstance(outcome, Answer)
        self.tokens += sum(took)
        self.cost = None if cost is None or self.cost is None else self.cost + cost


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
        return Outgoing(ask, body, content, sha256(head.encode() + content).digest())

    async def reserve(self, outgoing: Outgoing) -> Reservation:
        """Set aside what a request could take; raises UserError where the budget does not allow it."""
        return await self.budget.reserve((prompt_bound(outgoing.body), outgoing.ask.tokens_at_most))

    def read(self, outgoing: Outgoing, reply: Any, most: Tokens) -> Answer:
        """What is kept of a reply, with the tokens that it took, as many as `most` where the endpoint does not say.

        Raises:
            Fault: it is not what was asked for.
        """
        tokens = tokens_of(reply, most)
        try:
            return Answer(outgoing.ask.keep(reply), *tokens)
        except UNLIKE as error:
            words = self.client.secrets.redact(f"{type(error).__name__}: {error}")[:QUOTED]
        raise Fault(f"a reply without what was asked for: {words}", tokens=tokens)

    def store(self, outgoing: Outgoing, outcome: Outcome, most: Tokens, seconds: float = 0.0) -> Tokens:
        """Store a reply, or what a try took for nothing, and give the tokens that it took."""
        took = (0, 0)
        if isinstance(outcome, Answer):
            took = outcome.prompt_tokens, outcome.completion_tokens
        elif isinstance(outcome, Fault):
            took = most if outcome.tokens is None else outcome.tokens
        model, cost = self.config.model, self.config.cost(*took)
        self.account.add(outcome, took, cost)
        if isinstance(outcome, Answer):
            self.cache.put(outgoing.key, outcome, model=model, seconds=seconds, cost=cost)
        elif any(took):
            self.cache.put_lost(*took, model=model, why=str(outcome), cost=cost)
        return took

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

    @abstractmethod
    async def _fetch(self, outgoing: Outgoing) -> Answer:
        """The reply to a request that is not in the cache, stored there."""

    async def aclose(self) -> None:  # noqa: B027 - most senders have nothing to stop
        """Stop what goes on in the background."""


def tokens_of(reply: Any, most: Tokens) -> Tokens:
    """Tokens read and written, by `most` where the endpoint does not say."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else (None, None)
    read, written = (count if isinstance(count, int) and 0 <= count < MOST_TOKENS else None for count in counts)
    return read or most[0], most[1] if written is None else written
