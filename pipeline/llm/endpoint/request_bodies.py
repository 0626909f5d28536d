"""Requests as the bodies that an endpoint understands, with only what the probe found to work."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pipeline.llm.endpoint.capabilities import EndpointCapabilities
from pipeline.llm.endpoint.client import CHAT, PLAIN
from pipeline.llm.endpoint.completions import keep_replies
from pipeline.llm.endpoint.sender import Ask
from pipeline.llm.engine import Message, Request

STOPS = 4
"""Stop texts that servers take at most; a reply is cut at the others here."""
_STRIDE = 7919  # between the draws of one attempt and the next; a prime, so that neighbouring seeds do not meet soon


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
