"""Finds out by small real requests what an endpoint does with a model; servers ignore in silence what they do not know.

A field that is refused (a status such as 400) is unsupported at once. A field that was taken but shows no effect is asked
for TRIES times, as one odd reply of a busy server says nothing. A request without any answer ends the probe.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2
from openai import APIConnectionError, APIError, AsyncOpenAI

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.asks import Asks, NotFound
from pipeline.llm.endpoint.bodies import CHAT, PLAIN, chat_body, plain_body
from pipeline.llm.endpoint.faults import Rejected
from pipeline.llm.endpoint.probe_prompt import read_prompts
from pipeline.llm.endpoint.profile import LimitField, Profile
from pipeline.llm.endpoint.reading import in_order, keep_replies
from pipeline.llm.endpoint.together import together
from pipeline.llm.engine import EngineError, Message, Request
from pipeline.llm.prompt_encoder import PromptEncoder

TRIES = 3
ALTERNATIVES = (20, 5)
"""Alternatives asked for at each token, until the endpoint takes a number."""
REASONING_ROOM = 4_096
"""Tokens for the replies of a model that thinks before it writes."""
SECRET = "zq-417"  # noqa: S105 - the only answer that the probe's schema allows, and one that no model would give freely
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": [SECRET]}},
    "required": ["answer"],
    "additionalProperties": False,
}
LIMIT_FIELDS: tuple[LimitField, ...] = ("max_tokens", "max_completion_tokens")
CONTEXT_KEYS = ("max_model_len", "context_length", "max_context_length", "context_window")
_MARK = "\n\n\n"

Json = Mapping[str, Any]


class Probe:
    """One probing of one model behind one endpoint."""

    def __init__(self, sender: Asks, config: LanguageModel, encoder: PromptEncoder | None, attempt: int = 0) -> None:
        """
        Args:
            encoder: the model's tokenizer; without one, prompt log-probabilities are not asked for.
            attempt: raised, the endpoint is asked anew although replies are in the cache.
        """
        self._sender, self._config, self._encoder, self._first = sender, config, encoder, attempt
        self._room = 0
        self._profile = Profile()

    async def profile(self) -> Profile:
        """What the endpoint does.

        Raises:
            UserError: it does not answer, or answers no kind of request.
        """
        try:
            await self._find_kind()
            await self._find_plain_fields()
            checks: list[Awaitable[Any]] = [
                self._logprobs(), self._json_schema(), self._n(), self._seed(), self._reading(), self._context()
            ]  # fmt: skip
            logprobs, schema, n, seed, reading, context = await together(checks)
        except Rejected as error:
            raise UserError(f"{self._config.model} refuses a plain request: {error}") from None
        except EngineError as error:
            raise UserError(
                f"what {self._config.model} can do could not be found out: {error}; run again once its endpoint answers"
            ) from None
        return replace(
            self._profile, logprobs=logprobs, json_schema=schema, n=n, seed=seed, reading=reading, context=context
        )

    async def _find_kind(self) -> None:
        """Chat or plain completions, and the field that limits a reply."""
        refused: Exception | None = None
        for chat in (True, False):
            for field in LIMIT_FIELDS if chat else LIMIT_FIELDS[:1]:
                self._profile = Profile(chat=chat, limit_field=field, temperature=False, stop=False)
                try:
                    body = self._body("Reply with the word yes.", 16)
                    thinks = all([_is_cut(await self._send(body, attempt)) for attempt in range(2)])
                except NotFound as error:
                    refused = refused or error
                    break
                except Rejected as error:
                    refused = refused or error
                    continue
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
        self._profile = replace(self._profile, temperature=temperature, stop=stop)

    async def _taken(self, fields: dict[str, Any]) -> bool:
        try:
            await self._send(self._body("Reply with the word yes.", 16) | fields)
        except Rejected:
            return False
        return True

    async def _logprobs(self) -> int:
        for wanted in ALTERNATIVES:
            # As many as wanted are asked for, whatever the model is known to give.
            body = self._body("Count from 1 to 5.", 12, logprobs=wanted)
            if found := await self._seen(body, _alternatives):
                return min(found, wanted)
        return 0

    async def _json_schema(self) -> bool:
        if not self._profile.chat:
            return False
        body = self._body("What is the capital of France? Answer with one word.", 48, schema=SCHEMA)
        return bool(await self._seen(body, _obeys))

    async def _n(self) -> bool:
        body = self._body("Count from 1 to 100.", 8, temperature=1.0) | {self._profile.limit_field: 8, "n": 2}
        return bool(await self._seen(body, partial(_counts_both, room=8)))

    async def _seed(self) -> bool:
        """The same seed gives the same reply twice, and another seed another one."""
        body = self._body("Write ten words that have nothing in common.", 32, temperature=1.0)
        for attempt in range(0, 2 * TRIES, 2):
            try:
                draws = ((11, attempt), (11, attempt + 1), (12, attempt))
                same, again, other = await together(self._send(body | {"seed": seed}, at) for seed, at in draws)
            except Rejected:
                return False
            if _text(same) and _text(same) == _text(again) != _text(other):
                return True
        return False

    async def _reading(self) -> Any:
        return await read_prompts(self._sender, self._encoder, self._first)

    async def _context(self) -> int | None:
        return context_of(await _models(self._sender.client), self._config.model)

    def _body(
        self, text: str, room: int, temperature: float = 0.0, logprobs: int = 0, schema: Json | None = None
    ) -> dict[str, Any]:
        """A small request with what is known so far to work, and with what is to be tried."""
        request = Request(
            (Message("user", text),), max(room, self._room), temperature=temperature, logprobs=logprobs, schema=schema
        )
        tried = replace(self._profile, logprobs=logprobs, json_schema=schema is not None)
        return chat_body(request, tried) if tried.chat else plain_body(request, tried)

    async def _seen(self, body: dict[str, Any], look: Callable[[Json], int]) -> int:
        """What is seen in one of TRIES replies; 0 where the request is refused or nothing is seen in any."""
        for attempt in range(TRIES):
            try:
                if found := look(await self._send(body, attempt)):
                    return found
            except Rejected:
                return 0
        return 0

    async def _send(self, body: dict[str, Any], attempt: int = 0) -> Json:
        room = (body.get("max_tokens") or body.get("max_completion_tokens") or 0) * body.get("n", 1)
        answer = await self._sender.ask(
            CHAT if self._profile.chat else PLAIN, body, self._first + attempt, tokens_at_most=room, keep=_with_choices
        )
        return answer.body


async def _models(client: AsyncOpenAI) -> Json | None:
    """What /models says; None where the endpoint has no such list or answers something else."""
    for wait in (0.0, 1.0, 4.0):
        await asyncio.sleep(wait)
        try:
            reply = await client.get("/models", cast_to=httpx2.Response)
            return dict(reply.json())
        except APIConnectionError:
            continue
        except (APIError, ValueError, TypeError):
            return None
    raise EngineError("the list of models does not come")


def _with_choices(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply with at least one choice; anything else is a fault."""
    usage = reply.get("usage")
    return {"choices": in_order(reply), "usage": usage if isinstance(usage, dict) else {}}


def _alternatives(reply: Json) -> int:
    """Tokens listed in the place of one, 0 where there is at most one."""
    try:
        tokens = keep_replies(reply, 1, logprobs=True)["replies"][0]["tokens"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
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
    except ValueError:
        return False


def _text(reply: Json) -> str:
    first = reply["choices"][0]
    text = (first.get("message") or {}).get("content") or first.get("text") or ""
    return text if isinstance(text, str) else ""


def context_of(models: Json | None, name: str) -> int | None:
    """The tokens that a list of models says a model reads at once; None where it does not say."""
    listed = (models or {}).get("data")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    found = [entry for entry in entries if entry.get("id") == name] or (entries if len(entries) == 1 else [])
    for entry in found:
        meta = entry.get("meta")
        said = [entry.get(key) for key in CONTEXT_KEYS] + [meta.get("n_ctx") if isinstance(meta, dict) else None]
        for value in said:
            if isinstance(value, int) and value > 0:
                return value
    return None
