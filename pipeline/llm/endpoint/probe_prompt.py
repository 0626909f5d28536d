"""Finds out whether and how an endpoint gives the log-probabilities of a prompt's tokens."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.llm.endpoint.asks import Asks, NotFound
from pipeline.llm.endpoint.bodies import PLAIN
from pipeline.llm.endpoint.faults import Rejected
from pipeline.llm.endpoint.profile import PromptReading
from pipeline.llm.endpoint.prompt_reading import (
    alternatives,
    keep_next,
    keep_prompt,
    names_ids,
    next_body,
    prompt_body,
    spelling,
)
from pipeline.llm.endpoint.reading import in_order
from pipeline.llm.numbers import number_tokens
from pipeline.llm.prompt_encoder import PromptEncoder

TRIES = 3
ALTERNATIVES = (20, 5)
TEXT = "These are numbers:\t"

_UNLIKE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


async def read_prompts(sender: Asks, encoder: PromptEncoder | None, first_attempt: int) -> PromptReading:
    """The first way that works, tried on a prompt which ends with all tokens that numbers are written with.

    Each way is tried until TRIES replies show no effect of it. A way works if its answer names every token of the prompt
    at its place, with alternatives, and the token behind a prompt is given alternatives too.

    Raises:
        EngineError: no answer at all.
    """
    if encoder is None:
        return PromptReading()
    wanted = number_tokens(encoder).wanted
    start = len(encoder.encode(TEXT))
    ids = [*encoder.encode(TEXT), *wanted]
    for attempt in range(first_attempt, first_attempt + TRIES):
        ignored = False
        for way in _ways():
            try:
                reply = await _send(sender, prompt_body(ids, way), attempt, way.max_tokens)
                found = _found(reply, ids, start, way)
                behind = await _send(sender, next_body([ids, ids[:-1]], way), attempt, 2)
                keep_next(behind, 2, wanted, found)
            except NotFound:
                return PromptReading()
            except Rejected:
                continue
            except _UNLIKE:
                ignored = True
                continue
            return replace(found, token_ids=way.token_ids and names_ids(behind))
        if not ignored:
            break
    return PromptReading()


def _ways() -> Iterator[PromptReading]:
    """What may work, best first."""
    for wanted in ALTERNATIVES:
        yield PromptReading("prompt_logprobs", wanted, token_ids=True)
        yield PromptReading("prompt_logprobs", wanted)
    for wanted in ALTERNATIVES:
        yield PromptReading("echo", wanted, max_tokens=0)
        yield PromptReading("echo", wanted, max_tokens=1)


def _found(reply: Mapping[str, Any], ids: list[int], start: int, way: PromptReading) -> PromptReading:
    """The way with what its answer shows; raises where the answer does not show it."""
    names = spelling(reply, ids, start, way.way)
    if len({text for _, text in names}) < len(names) and not way.token_ids:
        raise ValueError("two tokens of numbers are named alike")
    listed = min(alternatives(reply, ids, start, way.way), way.alternatives)
    if listed < 2:
        raise ValueError("no alternatives to the prompt's own tokens")
    found = replace(way, listed=listed, spelling=names)
    keep_prompt(reply, ids, range(start, len(ids)), [token for token, _ in names], found)
    return found


async def _send(sender: Asks, body: dict[str, Any], attempt: int, tokens: int) -> dict[str, Any]:
    answer = await sender.ask(PLAIN, body, attempt, tokens_at_most=tokens, keep=_choices)
    return answer.body


def _choices(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply with at least one choice; anything else is a fault."""
    return {"choices": in_order(reply)}
