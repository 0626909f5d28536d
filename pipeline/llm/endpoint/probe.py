"""Finds out by small real requests what an endpoint does with a model; servers ignore in silence what they do not know.

A field is unsupported when it is refused (a status such as 400), or taken without effect, TRIES times, as one odd reply of a
busy server says nothing. A request without any answer ends the probe.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.concurrency import gather_all
from pipeline.llm.endpoint.client import PLAIN, Client, context_of
from pipeline.llm.endpoint.completions import (
    EndpointCapabilities,
    LimitField,
    PromptLogprobs,
    body_of,
    in_order,
    keep_replies,
)
from pipeline.llm.endpoint.faults import UNLIKE, NotFound, Rejected
from pipeline.llm.endpoint.number_scorers import ID_PREFIX, keep_next, keep_prompt, next_body, prompt_body
from pipeline.llm.endpoint.sender import Ask, Sender
from pipeline.llm.engine import EngineError, Message, Request
from pipeline.llm.prompt_encoder import PromptEncoder, number_tokens

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
TRIES = 3
ALTERNATIVES = (20, 5)
"""Alternatives asked for at each token, until the endpoint takes a number."""
WAYS = (
    *(PromptLogprobs("prompt_logprobs", wanted, token_ids=True) for wanted in ALTERNATIVES),
    *(PromptLogprobs("echo", wanted) for wanted in ALTERNATIVES),
)
"""Ways to read a prompt, the best first."""
TEXT = "These are numbers:\t"
YES = "Reply with the word yes."

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
        self.doubtful = False
        """Whether a refusal was taken back, so that others may have been a mistake too."""

    async def capabilities(self) -> EndpointCapabilities:
        """What the endpoint does.

        Raises:
            UserError: it does not answer, or answers no kind of request.
        """
        try:
            await self._find_kind()
            await self._find_plain_fields()
            checks: list[Awaitable[Any]] = [
                self._logprobs(), self._json_schema(), self._n(), self._seed(), self._reading(), self._client.models(),
            ]  # fmt: skip
            logprobs, schema, n, seed, reading, models = await gather_all(checks)
        except Rejected as error:
            raise UserError(f"{self._config.model} refuses a plain request: {error}") from None
        except EngineError as error:
            raise UserError(
                f"what {self._config.model} can do could not be found out: {error}; run again once its endpoint answers"
            ) from None
        names = tuple(str(entry.get("id")) for entry in models)
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
        temperature = stop = await self._taken(temperature=0, stop=["\n\n\n"])
        if not temperature:
            temperature, stop = await self._taken(temperature=0), await self._taken(stop=["\n\n\n"])
        self._can = replace(self._can, temperature=temperature, stop=stop)

    async def _taken(self, **fields: Any) -> bool:
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
        request = self._request("What is the capital of France? Answer with one word.", 48, schema=SCHEMA)
        return self._can.chat and bool(await self._seen(request, _obeys))

    async def _n(self) -> bool:
        request = self._request("Count from 1 to 100.", 8, temperature=1.0)
        return bool(await self._seen(request, _counts_both, **{self._can.limit_field: 8, "n": 2}))

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

    async def _reading(self) -> PromptLogprobs:
        """The first way to read a prompt that works, tried on a prompt which ends with all tokens that numbers are written with.

        A way works if its answer names every token of the prompt at its place, with alternatives, and the token behind a
        prompt is given alternatives too.
        """
        if self._encoder is None:
            return PromptLogprobs()
        wanted, before = number_tokens(self._encoder).wanted, self._encoder.encode(TEXT)
        ids, ignored = [*before, *wanted], True
        for attempt in range(TRIES):
            if not ignored:
                break
            ignored = False
            for way in WAYS:
                try:
                    found = _shown(await self._ask(PLAIN, prompt_body(ids, way), attempt), ids, len(before), way)
                    behind = await self._ask(PLAIN, next_body([ids, ids[:-1]], way), attempt)
                    return _checked_behind(behind, found, wanted)
                except NotFound:
                    return PromptLogprobs()
                except Rejected:
                    continue
                except UNLIKE:
                    ignored = True
        return PromptLogprobs()

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
        return await self._ask(path, body | fields, attempt)

    async def _ask(self, path: str, body: dict[str, Any], attempt: int) -> dict[str, Any]:
        """The reply to a request, which is refused only if it is TRIES times."""
        ask, refused = Ask(path, body, _with_choices, self._first + attempt), 0
        while True:
            try:
                answer = await self._sender.ask(ask)
            except Rejected:
                if (refused := refused + 1) == TRIES:
                    raise
            else:
                self.doubtful = self.doubtful or refused > 0
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


def _counts_both(reply: Json) -> bool:
    """Whether there are two replies of 8 tokens, and those of both are counted; a server that counts one hides a cost."""
    counted = reply["usage"].get("completion_tokens")
    return len(reply["choices"]) == 2 and not (isinstance(counted, int) and counted <= 8)


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
    return str((first.get("message") or {}).get("content") or first.get("text") or "")


def _shown(reply: Json, ids: list[int], start: int, way: PromptLogprobs) -> PromptLogprobs:
    """The way with what an answer shows of the prompt's tokens from `start` on; raises where it does not show it."""
    choice, places = reply["choices"][0], range(start, len(ids))
    if way.way == "echo":
        listed = choice["logprobs"]["top_logprobs"]
        names = [str(choice["logprobs"]["tokens"][place]) for place in places]
    else:
        listed = choice["prompt_logprobs"]
        names = [str(listed[place][str(ids[place])].get("decoded_token")) for place in places]
    fewest = min(way.alternatives, *(len(listed[place]) for place in places))
    if fewest < 2:
        raise ValueError("no alternatives to the prompt's own tokens")
    found = replace(way, listed=fewest, spelling=tuple(zip(ids[start:], names, strict=True)))
    keep_prompt(reply, ids, places, ids[start:], found)
    return found


def _checked_behind(reply: Json, found: PromptLogprobs, wanted: Sequence[int]) -> PromptLogprobs:
    """The way with what an answer shows of the token behind a prompt; raises where it does not show it."""
    keep_next(reply, 2, wanted, found)
    token_ids = all(key.startswith(ID_PREFIX) for key in reply["choices"][0]["logprobs"]["top_logprobs"][-1])
    if not token_ids and len({name for _, name in found.spelling}) < len(found.spelling):
        raise ValueError("two tokens of numbers are named alike")
    return replace(found, token_ids=found.token_ids and token_ids)
