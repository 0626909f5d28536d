"""Sends requests to an endpoint: each from the reply cache if it can, else with retries and within the budget."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.connection import HttpReply
from pipeline.llm.endpoint.faults import QUOTED, Fault, Rejected, embedded_status, read_refusal
from pipeline.llm.endpoint.http import Connections, TransportError
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.patience import Patience
from pipeline.llm.endpoint.replies import Answer, Replies
from pipeline.llm.endpoint.secrets import Secrets
from pipeline.llm.endpoint.sizes import PromptSizes, Size, size_of
from pipeline.llm.endpoint.slots import Slots
from pipeline.llm.engine import EngineError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Answer", "Rejected", "Sender", "content_of", "request_key"]

Json = dict[str, Any]
Keep = Callable[[Json], Json]
GARBAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
"""What reading a reply raises that is not what was asked for."""


@dataclass(frozen=True)
class _Outgoing:
    """A request on its way."""

    path: str
    content: bytes
    key: bytes
    size: Size
    tokens_at_most: int
    keep: Keep


@dataclass(frozen=True)
class _Outcome:
    """What came of one try, and the tokens that it took or may have taken."""

    result: Answer | Fault | Exception
    read: int = 0
    written: int = 0


class Sender:
    """Keeps up to `config.concurrency` requests in flight at one endpoint.

    A reply is stored before `ask` returns it. Two equal requests at a time are sent once. A wait between two tries holds
    no place in flight; where the endpoint asks for a pause, every request keeps it.
    """

    def __init__(
        self, config: LanguageModel, replies: Replies, ledger: Ledger, patience: Patience | None = None
    ) -> None:
        """
        Raises:
            UserError: an environment variable with a key or a header is not set.
        """
        self._config, self._replies, self._ledger = config, replies, ledger
        self._secrets = Secrets.of(config)
        self._connections = Connections(self._secrets, config.timeout)
        self._patience = patience or Patience(self._secrets.endpoint)
        self._slots = Slots(config.concurrency)
        self._sizes = PromptSizes()
        self._flights: dict[bytes, asyncio.Future[Answer]] = {}
        self._heard = 0

    @property
    def client(self) -> "AsyncOpenAI":
        """For what is no request to a model: lists of models, files, batches."""
        return self._connections.client

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        attempt: int = 0,
        *,
        tokens_at_most: int,
        keep: Keep = dict,
    ) -> Answer:
        """What `keep` leaves of the reply; see `pipeline.llm.endpoint.asks.Asks.ask`."""
        content = content_of(self._config, body)
        key = request_key(self._secrets.endpoint, path, content, attempt)
        while (flight := self._flights.get(key)) is not None:
            await asyncio.wait([flight])
            if not flight.cancelled():
                return flight.result()
        if (known := self._replies.get(key)) is not None:
            return known
        outgoing = _Outgoing(path, content, key, size_of(path, body), tokens_at_most, keep)
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
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
            del self._flights[key]

    async def aclose(self) -> None:
        """Close the connections and the reply cache, and leave what is not spent to other workers."""
        await self._connections.aclose()
        self._ledger.close()
        self._replies.close()

    async def _fetch(self, outgoing: _Outgoing) -> Answer:
        """Try until a reply can be used."""
        heard_before, tries = self._heard, self._config.retries + 1
        faults: list[Fault] = []
        while len(faults) < tries:
            if faults:
                await self._patience.before_try(len(faults))
            result = await self._try(outgoing)
            if isinstance(result, Answer):
                return result
            faults.append(result)
            if result.wait is not None:
                self._patience.hold_all(result.wait)
        last = faults[-1]
        if not last.answered and self._heard == heard_before:  # nobody has heard of it since the first try
            raise UserError(
                f"{self._secrets.endpoint} does not answer ({last.words}); start it or check engine.base_url"
            )
        raise EngineError(f"no usable reply in {tries} tries; the last one: {last.words}")

    async def _try(self, outgoing: _Outgoing) -> Answer | Fault:
        """Send once, when there is a place, no pause and enough budget."""
        while True:
            await self._patience.over()
            async with self._slots:
                if not self._patience.held:
                    return await self._send(outgoing)

    async def _send(self, outgoing: _Outgoing) -> Answer | Fault:
        most = self._sizes.at_most(outgoing.size)
        reserved = await self._ledger.reserve(most, outgoing.tokens_at_most)
        outcome = _Outcome(Fault("interrupted"), most, outgoing.tokens_at_most)
        started = time.perf_counter()
        try:
            outcome = await self._exchange(outgoing, most)
        finally:
            self._ledger.settle(reserved, outcome.read, outcome.written)
            self._store(outgoing, outcome, time.perf_counter() - started)
        if isinstance(outcome.result, Exception):
            raise outcome.result
        return outcome.result

    async def _exchange(self, outgoing: _Outgoing, most: int) -> _Outcome:
        """Post and read; what may have reached a server without a reply is taken to cost as much as it could."""
        try:
            reply = await self._connections.post(outgoing.path, outgoing.content)
        except TransportError as error:
            fault = Fault(str(error), answered=error.connected)
            return _Outcome(fault, most, outgoing.tokens_at_most) if error.sent else _Outcome(fault)
        self._heard += 1
        if not 200 <= reply.status < 300:
            return self._refused(reply.status, reply)
        try:
            parsed = json.loads(reply.content)
        except ValueError:
            words = "a reply that is no JSON" if reply.content else "an empty reply"
            return _Outcome(Fault(words), most, outgoing.tokens_at_most)
        if (status := embedded_status(parsed)) is not None:
            return self._refused(status, reply)
        return self._kept(outgoing, parsed, most)

    def _refused(self, status: int, reply: HttpReply) -> _Outcome:
        return _Outcome(read_refusal(status, reply.headers, reply.content, self._secrets, self._config.model))

    def _kept(self, outgoing: _Outgoing, parsed: Any, most: int) -> _Outcome:
        """The tokens of a reply, by its upper bound where it does not say, and what is kept of it."""
        read, written = usage_of(parsed)
        if read:
            self._sizes.learn(outgoing.size, read)
        read, written = read or most, outgoing.tokens_at_most if written is None else written
        try:
            return _Outcome(Answer(outgoing.keep(parsed), read, written), read, written)
        except GARBAGE as error:
            words = self._secrets.redact(f"{type(error).__name__}: {error}")[:QUOTED]
            return _Outcome(Fault(f"a reply without what was asked for: {words}"), read, written)

    def _store(self, outgoing: _Outgoing, outcome: _Outcome, seconds: float) -> None:
        model, cost = self._config.model, self._ledger.cost(outcome.read, outcome.written)
        if isinstance(outcome.result, Answer):
            self._replies.put(outgoing.key, outcome.result, model=model, seconds=seconds, cost=cost)
        elif outcome.read or outcome.written:
            why = outcome.result.words if isinstance(outcome.result, Fault) else type(outcome.result).__name__
            self._replies.put_lost(outcome.read, outcome.written, model=model, why=why, cost=cost)


def content_of(config: LanguageModel, body: Mapping[str, Any]) -> bytes:
    """A body with the model and the fields of the run file, as it is sent.

    Fields keep their order: servers have a model write the properties of a schema in the order in which it lists them.
    """
    whole = {"model": config.model, **body, **config.body}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def request_key(endpoint: str, path: str, content: bytes, attempt: int) -> bytes:
    """What a reply is stored under; `endpoint` is its address without user, password and query."""
    return sha256(f"{endpoint}\n{path}\n{attempt}\n".encode() + content).digest()


def usage_of(reply: Any) -> tuple[int | None, int | None]:
    """Tokens read and written; None where the endpoint does not say."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return None, None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return read if isinstance(read, int) and read > 0 else None, written if isinstance(written, int) else None
