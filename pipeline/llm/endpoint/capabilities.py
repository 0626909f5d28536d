"""What requests a model behind an endpoint understands, as the probe found it, and requests made accordingly."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from pydantic import TypeAdapter

from pipeline.llm.endpoint.client import CHAT, PLAIN
from pipeline.llm.endpoint.completions import keep_replies
from pipeline.llm.endpoint.sender import Ask
from pipeline.llm.engine import Capabilities, Message, Request

STOPS = 4
"""Stop texts that servers take at most; a reply is cut at the others here."""
_STRIDE = 7919  # between the draws of one attempt and the next; a prime, so that neighbouring seeds do not meet soon

LimitField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class PromptLogprobs:
    """How an endpoint gives the log-probabilities of the tokens of a prompt, which is sent as token ids."""

    way: Literal["", "prompt_logprobs", "echo"] = ""
    """By vLLM's field `prompt_logprobs`; by `echo` with `logprobs`, as SGLang does; empty where neither works."""
    alternatives: int = 0
    """Tokens to ask for at each place of the prompt."""
    listed: int = 0
    """Tokens that were given for so many, at least."""
    token_ids: bool = False
    """Whether it names the tokens of its reply by their ids (vLLM's `return_tokens_as_token_ids`)."""
    spelling: tuple[tuple[int, str], ...] = ()
    """The text by which it names each token that numbers are written with."""


@dataclass(frozen=True)
class EndpointCapabilities:
    """What a model behind an endpoint understands; kept as JSON in the response cache."""

    chat: bool = True
    """Answers /chat/completions; else only /completions."""
    limit_field: LimitField = "max_tokens"
    """The field that limits the tokens of a reply."""
    temperature: bool = True
    stop: bool = True
    """Whether these fields are taken; models that reason refuse them."""
    logprobs: int = 0
    """Alternatives given for each token of a reply."""
    json_schema: bool = False
    n: bool = False
    seed: bool = False
    context: int | None = None
    """Tokens of prompt and reply together, as /models says; None where it does not."""
    other_models: tuple[str, ...] = ()
    """The models that /models lists, where this one is not among them."""
    reading: PromptLogprobs = field(default_factory=PromptLogprobs)

    def of_engine(self) -> Capabilities:
        """What an engine can do with them."""
        prompts = bool(self.reading.way)
        return Capabilities(
            logprobs=self.logprobs,
            reply_numbers=prompts or self.logprobs > 0,
            prompt_numbers=prompts,
            json_schema=self.json_schema,
            n=self.n,
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """As a fact of the response cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EndpointCapabilities":
        """Back from a fact; fields of another version are left out."""
        return _ADAPTER.validate_python(values)


_ADAPTER = TypeAdapter(EndpointCapabilities)


def asks(request: Request, can: EndpointCapabilities) -> list[Ask]:
    """The requests to send for `request`: one, or one for each reply where the server gives only one.

    The i-th of them has the seed of the request plus i, and a raised `attempt` has other seeds. Where the server knows no
    seed, the number stands for the draw in the response cache, so that another seed is still another reply. A temperature
    of 0 has neither.
    """
    drawn = request.temperature > 0
    replies = request.n if can.n and drawn else 1
    path, body = body_of(request, can)
    if replies > 1:
        body["n"] = replies
    keep = partial(keep_replies, wanted=replies, logprobs=min(request.logprobs, can.logprobs) > 0)
    found = []
    for number in range(request.n // replies if drawn else 1):
        draw = (request.seed + number + _STRIDE * request.attempt) % 2**31
        attempt = request.attempt if can.seed or not drawn else draw
        seed = {"seed": draw} if can.seed and drawn else {}
        found.append(Ask(path, body | seed, replies * request.max_tokens, keep, attempt))
    return found


def body_of(request: Request, can: EndpointCapabilities) -> tuple[str, dict[str, Any]]:
    """Path and body of a request for one reply, without a seed."""
    body: dict[str, Any] = {}
    if can.chat:
        body["messages"] = [{"role": message.role, "content": message.content.lstrip()} for message in request.messages]
    else:
        body["prompt"] = plain_text(request.messages)
    body[can.limit_field] = request.max_tokens
    if can.temperature:
        body["temperature"] = request.temperature
    if can.stop and request.stop:
        body["stop"] = list(request.stop)[:STOPS]
    if can.chat and request.schema is not None and can.json_schema:
        schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if alternatives := min(request.logprobs, can.logprobs):
        body |= {"logprobs": True, "top_logprobs": alternatives} if can.chat else {"logprobs": alternatives}
    return CHAT if can.chat else PLAIN, body


def plain_text(messages: Sequence[Message]) -> str:
    """The messages for a model without chat, joined as `Message` says."""
    parts = [messages[0].content]
    for message in messages[1:]:
        if message.role != "assistant":
            parts.append("\n\n")
        elif not message.content[:1].isspace():
            parts.append(" ")
        parts.append(message.content)
    return "".join(parts)
