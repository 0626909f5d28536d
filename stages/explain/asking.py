"""Asking a language model about a unit: the longest prompt that fits, replies until there are enough, candidates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.llm.engine import Completion, Engine, EngineError, Message, PromptTooLong, Refused, Request
from stages.explain.base import Candidate, ExplanationError

TEMPERATURE = 1.0
ATTEMPTS = 3
"""Requests at most, each with another seed, until there is a usable reply for every candidate."""


@dataclass(frozen=True)
class Part:
    """Things of one kind that a prompt shows."""

    name: str
    """In the singular, such as "exemplar"."""
    items: Sequence[Any]
    """The most important first."""
    least: int = 0
    """This many have to stay."""
    step: int = 1
    """How many are left out at a time."""

    def fewer(self) -> Iterator[int]:
        """Ever smaller numbers of items, down to `least`."""
        if len(self.items) > self.least:
            yield from range(len(self.items) - self.step, self.least, -self.step)
            yield self.least


@dataclass(frozen=True)
class Question:
    """What an explainer asks about one unit."""

    prompt_id: str
    parts: tuple[Part, ...]
    """In the order in which they are left out of a prompt that does not fit: all of the first, then of the second."""
    write: Callable[..., tuple[Message, ...]]
    """The conversation that shows the given items, a sequence for each part."""
    read: Callable[[Completion], str]
    """The explanation in a reply; empty where the reply cannot be used."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


async def ask(engine: Engine, question: Question, candidates: int, seed: int) -> list[Candidate]:
    """Different replies to one prompt, in the order in which they were drawn, at most `candidates`.

    Their token counts add up to what the unit took: the first one carries every prompt and every reply that was not
    usable. A reply that says the same as another is no candidate of its own and is not asked for again.

    Raises:
        ExplanationError: no prompt fits, the request fails, or no reply of ATTEMPTS requests was usable.
    """
    too_long = ""
    for counts in shapes(question.parts):
        messages = question.write(*(part.items[:count] for part, count in zip(question.parts, counts, strict=True)))
        if engine.context is not None and engine.count_tokens(messages) + question.max_tokens > engine.context:
            too_long = f"does not fit the model's context of {engine.context} tokens"
            continue
        try:
            drawn = await _draw(engine, question, messages, candidates, seed)
        except PromptTooLong as error:
            too_long = f"is too long: {error}"
            continue
        return _candidates(engine, question, drawn, left_out(question.parts, counts))
    least = ", ".join(_counted(part.name, part.least) for part in question.parts if part.least)
    raise ExplanationError(f"a prompt with {least} alone {too_long}")


def shapes(parts: Sequence[Part]) -> Iterator[tuple[int, ...]]:
    """How many items of each part to show, from all to the least; the first part shrinks first."""
    shown = [len(part.items) for part in parts]
    yield tuple(shown)
    for place, part in enumerate(parts):
        for shown[place] in part.fewer():
            yield tuple(shown)


def left_out(parts: Sequence[Part], counts: Sequence[int]) -> str:
    """What is not shown, such as "2 few-shot examples, 1 exemplar"."""
    missing = [(part.name, len(part.items) - count) for part, count in zip(parts, counts, strict=True)]
    return ", ".join(_counted(name, count) for name, count in missing if count)


def _counted(name: str, count: int) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


@dataclass
class _Drawn:
    usable: list[tuple[str, Completion]]
    prompt_tokens: int = 0
    wasted: int = 0
    """Tokens of replies that were not usable."""


async def _draw(
    engine: Engine, question: Question, messages: tuple[Message, ...], candidates: int, seed: int
) -> _Drawn:
    drawn, last = _Drawn([]), ""
    for attempt in range(ATTEMPTS):
        request = Request(
            messages, question.max_tokens, candidates - len(drawn.usable), TEMPERATURE, question.stop,
            _attempt_seed(seed, attempt), question.schema, attempt=attempt,
        )  # fmt: skip
        try:
            replies = await engine.complete(request)
        except Refused as error:
            last = str(error)
            drawn.prompt_tokens += error.prompt_tokens
            drawn.wasted += error.completion_tokens
            continue
        except EngineError as error:
            if drawn.usable:
                break  # what was paid for is used
            if isinstance(error, PromptTooLong):
                raise
            raise ExplanationError(str(error), drawn.prompt_tokens, drawn.wasted) from error
        drawn.prompt_tokens += max((reply.prompt_tokens for reply in replies), default=0)
        for reply in replies:
            text, last = question.read(reply), reply.text
            if text:
                drawn.usable.append((text, reply))
            else:
                drawn.wasted += reply.completion_tokens
        if len(drawn.usable) >= candidates:
            break
    if not drawn.usable:
        message = f"no usable reply in {ATTEMPTS} requests; the last one was {last[:80]!r}"
        raise ExplanationError(message, drawn.prompt_tokens, drawn.wasted)
    return drawn


def _candidates(engine: Engine, question: Question, drawn: _Drawn, dropped: str) -> list[Candidate]:
    """A candidate for each different text; a repeated text's tokens go to its first."""
    spent = dict.fromkeys((text for text, _ in drawn.usable), 0)
    for text, reply in drawn.usable:
        spent[text] += reply.completion_tokens
    first = drawn.usable[0][0]
    spent[first] += drawn.wasted
    return [
        Candidate(
            text, question.prompt_id, engine.name, drawn.prompt_tokens if text == first else 0, tokens, dropped
        )
        for text, tokens in spent.items()
    ]  # fmt: skip


def _attempt_seed(seed: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
