"""Asking a language model: a request is repeated until a reply can be used; a stage whose replies are mostly useless stops."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.llm.engine import (
    Completion,
    Engine,
    EngineError,
    Message,
    NumberPrompt,
    NumberScores,
    PromptTooLong,
    Refused,
    Request,
    valid_text,
)
from pipeline.llm.load import load_engine

ATTEMPTS = 3
"""Requests for the same thing at most, while replies cannot be used."""
RETRY_TEMPERATURE = 0.7
"""Of a repeated request whose first one was greedy: without it, the same reply would come again."""
FIRST_REPLIES = 20
"""The share of useless replies and failed requests is looked at from this many of both on."""
SHOWN = 80
"""Characters of a reply or an error that a message shows."""


class Use(Enum):
    """How much of a reply can be used."""

    NOTHING = "nothing"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True)
class Reply:
    """What a request came back with."""

    completions: list[Completion]
    """Empty where the model refused."""
    refusal: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def text(self) -> str:
        """Of the last completion, or the refusal."""
        return self.completions[-1].text if self.completions else self.refusal


class Asker:
    """A language model as one stage asks it."""

    def __init__(self, engine: Engine, max_failure_share: float = 1.0) -> None:
        """max_failure_share: the stage stops where more than this share of the requests, from FIRST_REPLIES on, brings nothing."""
        self.engine = engine
        self._most = max_failure_share
        self._replies = 0
        self._useless: Counter[str] = Counter()

    async def ask(
        self, request: Callable[[int], Request], take: Callable[[Reply], Use], attempts: int = ATTEMPTS
    ) -> EngineError | None:
        """Ask until all that is wanted is there, or `attempts` requests were made.

        Args:
            request: the request, given the number of requests before it.
            take: uses what it can of a reply.

        Where all were made in vain, those of no use are asked anew when the stage is redone.

        Returns:
            The error that ended it, None where there was none. A refusal is a reply, as another attempt may succeed.

        Raises:
            UserError: too many requests of the stage bring nothing, or whatever the engine raises.
        """
        in_vain: list[Request] = []
        for attempt in range(attempts):
            asked = request(attempt)
            try:
                found = await self.engine.complete(asked)
            except Refused as error:
                reply = Reply([], str(error), error.prompt_tokens, error.completion_tokens)
            except EngineError as error:
                if not isinstance(error, PromptTooLong):  # a shorter prompt may follow
                    self._count(True, str(error))
                return error
            else:
                read = max((one.prompt_tokens for one in found), default=0)
                reply = Reply(found, "", read, sum(one.completion_tokens for one in found))
            use = take(reply)
            if use is Use.NOTHING:
                in_vain.append(asked)
            if use is Use.ALL:
                in_vain = []
            elif attempt == attempts - 1:
                self.engine.mark_useless(in_vain)
            self._count(use is Use.NOTHING, reply.text)
            if use is Use.ALL:
                break
        return None

    def taken(self) -> str:
        """How many replies there were, in words for people."""
        return f"{self._replies:,} replies, {self._useless.total():,} useless"

    async def score(self, prompts: Sequence[NumberPrompt]) -> list[NumberScores]:
        """The probabilities of numbers at the slots of some prompts; one that gives none is a useless reply."""
        scores = await self.engine.score(prompts)
        for score in scores:
            self._count(score.probabilities is None, score.error)
        return scores

    def _count(self, useless: bool, shown: str) -> None:
        self._replies += 1
        if not useless:
            return
        self._useless[shown[:SHOWN]] += 1
        count = self._useless.total()
        if self._replies >= FIRST_REPLIES and count > self._most * self._replies:
            ((most, times),) = self._useless.most_common(1)
            raise UserError(
                f"{count} of {self._replies} replies of {self.engine.name} could not be used; {times} of them say {most!r}. "
                "Name another model or another method, or raise max_failure_share of its engine to go on all the same. "
                "The same command then carries on; replies that are there are not paid for again"
            )


def greedy_request(messages: Sequence[Message], max_tokens: int, stop: str, attempt: int, **more: Any) -> Request:
    """A request that is greedy at first, then drawn with another seed each time; `more` as of Request."""
    warmth = RETRY_TEMPERATURE if attempt else 0.0
    return Request(tuple(messages), max_tokens, temperature=warmth, stop=(stop,), seed=attempt, attempt=attempt, **more)


def json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object that a reply holds, whatever stands around it; none inside another one."""
    decoder, start = json.JSONDecoder(strict=False), text.find("{")
    while start >= 0:
        end = start + 1
        with contextlib.suppress(ValueError, RecursionError):
            value, end = decoder.raw_decode(text, start)
            yield json.loads(valid_text(json.dumps(value, ensure_ascii=False))) if "\\u" in text else value
        start = text.find("{", end)


def open_asker(model: LanguageModel | None, context: Context) -> Asker:
    """The language model that a stage of a run asks, made once."""
    assert model is not None, "the settings see to it that methods with a language model have one"
    engine = context.once("engine", lambda _: load_engine(model, context))
    return context.once("asker", lambda _: Asker(engine, model.max_failure_share))
