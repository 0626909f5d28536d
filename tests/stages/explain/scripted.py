"""A language model whose replies are written beforehand, and units to ask it about."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.config import LanguageModel
from pipeline.config.section import choice
from pipeline.llm.engine import (
    Capabilities,
    Completion,
    Engine,
    EngineError,
    Message,
    NumberPrompt,
    NumberScores,
    PromptTooLong,
    Request,
)
from stages.asking import Asker
from stages.evidence import Evidence, Exemplar, TopToken
from stages.explain import EXPLAINERS
from stages.explain.explain_units import Candidate, Explainer, ExplanationError
from stages.settings import Explain

Reply = Callable[[int, int], str | EngineError]


class ScriptedEngine(Engine):
    """Replies by a function of the request's and the reply's number, which may give an error; a word is a token.

    Args:
        context: tokens of prompt and reply at most; longer requests raise PromptTooLong.
        told: whether the explainer is told the context beforehand.
        cut: whether the token limit cuts every reply.
    """

    name = "scripted@1"

    def __init__(
        self, reply: Reply, context: int = 100_000, *, told: bool = True, json_schema: bool = False, cut: bool = False
    ) -> None:
        self.reply = reply
        self.limit = context
        self.context = context if told else None
        self.json_schema = json_schema
        self.cut = cut
        self.asked: list[Request] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    async def capabilities(self) -> Capabilities:
        return Capabilities(json_schema=self.json_schema, n=True, seed=True)

    async def complete(self, request: Request) -> list[Completion]:
        prompt_tokens = self.count_tokens(request.messages)
        if prompt_tokens + request.max_tokens > self.limit:
            raise PromptTooLong(f"{prompt_tokens} tokens")
        self.asked.append(request)
        replies = []
        for number in range(request.n):
            text = self.reply(len(self.asked) - 1, number)
            if isinstance(text, EngineError):
                raise text
            replies.append(Completion(text, prompt_tokens, len(text.split()), not self.cut))
        return replies

    async def score(self, passages: Sequence[NumberPrompt]) -> list[NumberScores]:
        raise NotImplementedError

    def mark_useless(self, requests: Sequence[Request]) -> None:
        pass

    async def aclose(self) -> None:
        pass

    @property
    def question(self) -> str:
        """What the first request asked about the unit."""
        return self.asked[0].messages[-1].content


def says(text: str) -> Reply:
    return lambda request, number: text


def opened(name: str, engine: Engine, **settings: Any) -> Explainer:
    """An explainer that asks an engine, with some settings."""
    method = choice(EXPLAINERS, name)
    section = Explain.model_validate({"explainer": name, "engine": LanguageModel(model="m"), **settings})
    made: Explainer = method.build(section, Asker(engine), method.load_prompts(""))
    return made


def explained(name: str, engine: Engine, unit: Evidence, **settings: Any) -> list[Candidate]:
    """What it says of a unit."""

    async def explain() -> list[Candidate]:
        return await opened(name, engine, **settings)(unit, 1)

    return asyncio.run(explain())


def ever_shorter(
    explain: Callable[[ScriptedEngine], list[Candidate]], reply: str
) -> Iterator[tuple[Candidate, ScriptedEngine]]:
    """The first candidate and the engine, with a context that is each time a token too small for the prompt before.

    Ends with the ExplanationError that says that the smallest prompt does not fit.
    """
    context = 100_000
    while True:
        engine = ScriptedEngine(says(reply), context)
        try:
            yield explain(engine)[0], engine
        except ExplanationError as error:
            if "alone does not fit" in str(error):
                return
            raise
        context = engine.count_tokens(engine.asked[0].messages) + engine.asked[0].max_tokens - 1


def exemplar(values: list[float], band: str = "top", word: str = " tok", seq_id: int = 0) -> Exemplar:
    tokens = [f"{word}{n}" for n in range(len(values))]
    return Exemplar(seq_id, band, tokens, np.array(values, dtype=np.float32))


def text(tokens: str, values: dict[str, float], band: str = "top", seq_id: int = 0) -> Exemplar:
    """A sequence of words, each a token, in which the named ones have an activation and the others none."""
    words = [f" {word}" for word in tokens.split()]
    return Exemplar(seq_id, band, words, np.array([values.get(word[1:], 0.0) for word in words], dtype=np.float32))


def evidence(*exemplars: Exemplar, top_tokens: Sequence[TopToken] = ()) -> Evidence:
    return Evidence("layers.0.mlp", 7, "+", list(exemplars), list(top_tokens))
