"""Finds out by small real requests what an endpoint does with a model; servers ignore in silence what they do not know.

A field that is refused (a status such as 400) is unsupported at once. A field that was taken but shows no effect is asked
for TRIES times, as one odd reply of a busy server says nothing. A request without any answer ends the probe.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.concurrency import gather_all
from pipeline.llm.endpoint.client import Client
from pipeline.llm.endpoint.completions import (
    EndpointCapabilities,
    LimitField,
    PromptLogprobs,
    body_of,
    in_order,
    keep_replies,
)
from pipeline.llm.endpoint.faults import UNLIKE, NotFound, Rejected
from pipeline.llm.endpoint.prompt_logprobs import ALTERNATIVES, TRIES, find_reading
from pipeline.llm.endpoint.sender import Ask, Sender
from pipeline.llm.engine import EngineError, Message, Request
from pipeline.llm.prompt_encoder import PromptEncoder

REASONING_ROOM = 4_096
"""Tokens for the replies of a model that thinks before it writes."""
SECRET = "zq-417"  # noqa: S105 - the only answer that the probe's schema allows, and one that no model would give freely
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": [SECRET]}},
    "required": ["answer"],
    "additionalProperties": False,
}
KINDS: tuple[tuple[bool, LimitField], ...] = (
    (True, "max_tokens"),
    (True, "max_completion_tokens"),
    (False, "max_tokens"),
)
"""What is tried, in this order: chat or not, and the field that limits a reply."""
CONTEXT_KEYS = ("max_model_len", "context_length", "max_context_length", "context_window")
YES = "Reply with the word yes."
_MARK = "\n\n\n"

Json = Mapping[str, Any]


class Probe:
    """One probing of one model behind one endpoint."""

    def __init__(
        self, sender: Sender, client: Client, config: LanguageModel, encoder: PromptEncoder | None, attempt: int = 0
    ) -> None:
        """
        Args:
            encoder: the model's tokenizer; without one, prompt log-probabilities are not asked for.
            attempt: raised, the endpoint is asked anew although replies are in the cache.
        """
        self._sender, self._client, self._config, self._encoder = sender, client, config, encoder
        self._first = attempt
        self._room = 0
        self._can = EndpointCapabilities()

    async def capabilities(self) -> EndpointCapabilities:
        """What the endpoint does.

        Raises:
            UserError: it does not answer, or answers no kind of request.
        """
        try:
            await self._find_kind()
            await self._find_plain_fields()
            checks: list[Awaitable[Any]] = [self._logprobs(), self._json_schema(), self._n(), self._seed()]
            if self._encoder is not None:
                checks.append(find_reading(self._sender, self._encoder, self._first))
            logprobs, schema, n, seed, *found = await gather_all(checks)
            models = await self._client.models()
        except Rejected as error:
            raise UserError(f"{self._config.model} refuses a plain request: {error}") from None
        except EngineError as error:
            raise UserError(
                f"what {self._config.model} can do could not be found out: {error}; run again once its endpoint answers"
            ) from None
        names = tuple(str(entry.get("id")) for entry in models)
        reading: PromptLogprobs = found[0] if found else PromptLogprobs()
        return replace(
            self._can,
            logprobs=logprobs,
            reply_numbers=logprobs > 0 or bool(reading.way),
            prompt_numbers=bool(reading.way),
            json_schema=schema,
            n=n,
            seed=seed,
            reading=reading,
            context=context_of(models, self._config.model),
            other_models=() if self._config.model in names else names,
        )

    async def _find_kind(self) -> None:
        """Chat or plain completions, and the field that limits a reply."""
        refused: UserError | Rejected | None = None
        for chat, field in KINDS:
            if isinstance(refused, NotFound) and chat:
                continue
            self._can = EndpointCapabilities(chat=chat, limit_field=field, temperature=False, stop=False)
            try:
                thinks = all([_is_cut(await self._send(self._request(YES, 16), attempt)) for attempt in range(2)])
            except (NotFound, Rejected) as error:
                refused = refused or error
            else:
                self._room = REASONING_ROOM if thinks else 0
                return
        assert refused is not None
        raise refused

    async def _find_plain_fields(self) -> None:
        """Whether `temperature` and `stop` are taken at all."""
        temperature = stop = await self._taken({"temperature": 0, "stop": [_MARK]})
        if not temperature:
            temperature = await self._taken({"temperature": 0})
            stop = await self._taken({"stop": [_MARK]})
        self._can = replace(self._can, temperature=temperature, stop=stop)

    async def _taken(self, fields: dict[str, Any]) -> bool:
        try:
            await self._send(self._request(YES, 16), **fields)
        except Rejected:
            return False
        return True

    async def _logprobs(self) -> int:
        for wanted in ALTERNATIVES:
            request = self._request("Count from 1 to 5.", 12, logprobs=wanted)
            if found := await self._seen(request, _alternatives):
                return min(found, wanted)
        return 0

    async def _json_schema(self) -> bool:
        question = "What is the capital of France? Answer with one word."
        return self._can.chat and bool(await self._seen(self._request(question, 48, schema=SCHEMA), _obeys))

    async def _n(self) -> bool:
        request = self._request("Count from 1 to 100.", 8, temperature=1.0)
        fields = {self._can.limit_field: 8, "n": 2}
        return bool(await self._seen(request, partial(_counts_both, room=8), **fields))

    async def _seed(self) -> bool:
        """The same seed gives the same reply twice, and another seed another one."""
        request = self._request("Write ten words that have nothing in common.", 32, temperature=1.0)
        for attempt in range(0, 2 * TRIES, 2):
            try:
                draws = ((11, attempt), (11, attempt + 1), (12, attempt))
                same, again, other = await gather_all(self._send(request, at, seed=seed) for seed, at in draws)
            except Rejected:
                return False
            if _text(same) and _text(same) == _text(again) != _text(other):
                return True
        return False

    def _request(
        self, text: str, room: int, temperature: float = 0.0, logprobs: int = 0, schema: Json | None = None
    ) -> Request:
        """A small question, with room for the thoughts of a model that reasons."""
        room = max(room, self._room)
        return Request((Message("user", text),), room, temperature=temperature, logprobs=logprobs, schema=schema)

    async def _seen(self, request: Request, look: Callable[[Json], int], **fields: Any) -> int:
        """What is seen in one of TRIES replies; 0 where the request is refused or nothing is seen in any."""
        for attempt in range(TRIES):
            try:
                if found := look(await self._send(request, attempt, **fields)):
                    return found
            except Rejected:
                return 0
        return 0

    async def _send(self, request: Request, attempt: int = 0, **fields: Any) -> Json:
        """The reply to a request with what is known so far to work, what it tries, and further fields."""
        tried = replace(self._can, logprobs=request.logprobs, json_schema=request.schema is not None)
        path, body = body_of(request, tried)
        body |= fields
        answer = await self._sender.ask(Ask(path, body, keep=_with_choices, attempt=self._first + attempt))
        return answer.body


def _with_choices(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply with at least one choice; anything else is a fault."""
    usage = reply.get("usage")
    return {"choices": in_order(reply), "usage": usage if isinstance(usage, dict) else {}}


def _alternatives(reply: Json) -> int:
    """Tokens listed in the place of one, 0 where there is at most one."""
    try:
        tokens = keep_replies(reply, 1, logprobs=True)["replies"][0]["tokens"]
    except UNLIKE:
        return 0
    most = max((len(alternatives) for _, alternatives in tokens), default=0)
    return most if most > 1 else 0


def _counts_both(reply: Json, room: int) -> bool:
    """Whether there are two replies, and the tokens of both are counted; a server that counts one hides a cost."""
    counted = reply["usage"].get("completion_tokens")
    return len(reply["choices"]) == 2 and not (isinstance(counted, int) and counted <= room)


def _is_cut(reply: Json) -> bool:
    """Whether the token limit came before any text."""
    return not _text(reply) and reply["choices"][0].get("finish_reason") == "length"


def _obeys(reply: Json) -> bool:
    try:
        return bool(json.loads(_text(reply)) == {"answer": SECRET})
    except UNLIKE:
        return False


def _text(reply: Json) -> str:
    first = reply["choices"][0]
    text = (first.get("message") or {}).get("content") or first.get("text") or ""
    return text if isinstance(text, str) else ""


def context_of(models: Sequence[Json], name: str) -> int | None:
    """The tokens that a list of models says a model reads at once; None where it does not say."""
    found = [entry for entry in models if entry.get("id") == name] or (models if len(models) == 1 else [])
    for entry in found:
        meta = entry.get("meta")
        said = [entry.get(key) for key in CONTEXT_KEYS] + [meta.get("n_ctx") if isinstance(meta, dict) else None]
        for value in said:
            if isinstance(value, int) and value > 0:
                return value
    return None
