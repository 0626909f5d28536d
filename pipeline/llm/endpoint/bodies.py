"""Requests as the bodies that an endpoint understands, with only what the probe found to work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.llm.endpoint.profile import Profile
from pipeline.llm.engine import Message, Request

CHAT = "/chat/completions"
PLAIN = "/completions"
_STRIDE = 7919  # between the draws of one attempt and the next; a prime, so that neighbouring seeds do not meet soon


@dataclass(frozen=True)
class Ask:
    """One request to an endpoint."""

    path: str
    body: dict[str, Any]
    attempt: int
    """Tells requests with the same body apart in the reply cache."""
    replies: int
    tokens_at_most: int
    """Of all its replies."""


def asks(request: Request, profile: Profile) -> list[Ask]:
    """The requests to send for `request`: one, or one for each reply where the server gives only one.

    The i-th of them has the seed of the request plus i, and a raised `attempt` has other seeds; where the server knows no
    seed, the number stands for the draw in the reply cache, so that another seed is still another reply. A temperature
    of 0 has neither.
    """
    drawn = request.temperature > 0
    replies = request.n if profile.n and drawn else 1
    body = chat_body(request, profile) if profile.chat else plain_body(request, profile)
    if replies > 1:
        body["n"] = replies
    path = CHAT if profile.chat else PLAIN
    found = []
    for number in range(request.n // replies if drawn else 1):
        draw = (request.seed + number + _STRIDE * request.attempt) % 2**31
        attempt = request.attempt if profile.seed or not drawn else draw
        seed = {"seed": draw} if profile.seed and drawn else {}
        found.append(Ask(path, body | seed, attempt, replies, replies * request.max_tokens))
    return found


def chat_body(request: Request, profile: Profile) -> dict[str, Any]:
    """The body of a chat request, but for `n` and `seed`."""
    messages = [{"role": message.role, "content": message.content.lstrip()} for message in request.messages]
    body = {"messages": messages} | _common(request, profile)
    if request.schema is not None and profile.json_schema:
        schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if alternatives := min(request.logprobs, profile.logprobs):
        body |= {"logprobs": True, "top_logprobs": alternatives}
    return body


def plain_body(request: Request, profile: Profile) -> dict[str, Any]:
    """The body of a request to a model without chat, but for `n` and `seed`."""
    body = {"prompt": plain_text(request.messages)} | _common(request, profile)
    if alternatives := min(request.logprobs, profile.logprobs):
        body["logprobs"] = alternatives
    return body


def _common(request: Request, profile: Profile) -> dict[str, Any]:
    body: dict[str, Any] = {profile.limit_field: request.max_tokens}
    if profile.temperature:
        body["temperature"] = request.temperature
    if profile.stop and request.stop:
        body["stop"] = list(request.stop)[:4]  # more are refused; a reply is cut at the others here
    return body


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
