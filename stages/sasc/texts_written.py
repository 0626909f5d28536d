"""Texts for and against an explanation that a language model writes."""

import json

import numpy as np

from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.context import Context
from pipeline.llm.engine import Completion, Engine, EngineError, Message, PromptTooLong, Refused, Request
from pipeline.prompts import Prompt
from stages.sasc.methods import Method, Synthesizer, Texts
from stages.sasc.text_lists import SCHEMA, read_texts
from stages.sasc.usable_texts import usable

PROMPTS = ("sasc/relevant.v1", "sasc/baseline.v1")
AT_A_TIME = 10
"""Texts asked for in one request."""
ROUNDS = 4
"""What is missing after the requests of one round is asked for in the next."""
TOKENS = 70
"""Of a text, with its number; a reply may have as many for each text asked for."""
TEMPERATURE = 1.0


class LanguageModelSynthesizer:
    """Asks for texts that fit the explanation, and for texts that do not (Singh et al. 2023, section 3).

    A reply is read as a list. Its texts are checked: none twice, in either kind, none that repeats the request, none that is
    no text. What is missing is asked for again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """Up to `count` texts of each kind; `errors` say why there are fewer."""
        as_json = (await self._engine.capabilities()).json_schema
        relevant, baseline = (
            _Kind(prompt_id, explanation, count, seed + number, as_json) for number, prompt_id in enumerate(PROMPTS)
        )
        for _ in range(ROUNDS):
            asked = [(kind, request) for kind in (relevant, baseline) for request in kind.requests()]
            replies = await bounded_gather(self._reply, [request for _, request in asked], len(asked))
            for (kind, request), reply in zip(asked, replies, strict=True):
                kind.take(request, reply, [*relevant.texts, *baseline.texts])
        return Texts(
            relevant.texts,
            baseline.texts,
            "written",
            self._engine.name,
            PROMPTS,
            (relevant.prompt_tokens, baseline.prompt_tokens),
            (relevant.completion_tokens, baseline.completion_tokens),
            (relevant.reason(), baseline.reason()),
        )

    async def _reply(self, request: Request) -> Completion | EngineError:
        try:
            return (await self._engine.complete(request))[0]
        except EngineError as error:
            return error


class _Kind:
    """The texts for an explanation, or those against it, and what they took."""

    def __init__(self, prompt_id: str, explanation: str, count: int, seed: int, as_json: bool) -> None:
        self.texts: list[str] = []
        self.prompt_tokens = self.completion_tokens = 0
        self._error = ""
        self._prompt_id, self._explanation, self._as_json = prompt_id, explanation, as_json
        self._count, self._seed, self._requests = count, seed, 0
        self._ended = False

    def requests(self) -> list[Request]:
        """For what is missing, of at most AT_A_TIME texts each; none after an error that is no refusal."""
        missing = 0 if self._ended else self._count - len(self.texts)
        return [self._request(min(AT_A_TIME, missing - first)) for first in range(0, missing, AT_A_TIME)]

    def take(self, request: Request, reply: Completion | EngineError, taken: list[str]) -> None:
        """Keep what can be used of a reply.

        Args:
            taken: texts that there are, of both kinds.
        """
        if isinstance(reply, EngineError):
            self._fail(reply)
            return
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        asked = "\n".join(message.content for message in request.messages)
        read = read_texts(reply.text, finished=reply.finished, wanted=request.max_tokens // TOKENS)
        self.texts += usable(read, taken, asked)[: self._count - len(self.texts)]
        self._error = f"{len(self.texts)} of {self._count} texts could be used; the last reply was {reply.text[:80]!r}"

    def reason(self) -> str:
        """Why there are fewer texts than were wanted; empty where there are not."""
        return self._error if len(self.texts) < self._count else ""

    def _fail(self, error: EngineError) -> None:
        if isinstance(error, Refused):
            self.prompt_tokens += error.prompt_tokens
            self.completion_tokens += error.completion_tokens
            self._error = f"refused: {error}"
        else:
            self._error = f"{'too long: ' if isinstance(error, PromptTooLong) else ''}{error}"
            self._ended = True

    def _request(self, wanted: int) -> Request:
        number, self._requests = self._requests, self._requests + 1
        values = {"explanation": self._explanation, "count": wanted, "as_json": self._as_json}
        prompt = Prompt(self._prompt_id)
        messages = (
            Message("system", prompt.part("system", as_json=self._as_json)),
            Message("user", prompt.part("request", **values)),
        )
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        schema = SCHEMA if self._as_json else None
        return Request(messages, TOKENS * wanted, temperature=TEMPERATURE, seed=seed, schema=schema, attempt=number)


def made_up(request: Request, number: int) -> str:
    """A reply as a language model could give it: as many texts as were asked for, others for each number."""
    texts = [
        f"In {1 + number * AT_A_TIME + place} the old ship left the harbour again, and nobody in the town knew when it would return."
        for place in range(request.max_tokens // TOKENS)
    ]
    if request.schema:
        return json.dumps({"texts": texts})
    return "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1))


def _open(context: Context, engine: Engine | None) -> Synthesizer:  # noqa: ARG001 - the contract of a method
    assert engine is not None, "the section Sasc sees to it"
    return LanguageModelSynthesizer(engine)


METHOD = Method(_open, engine="needed", prompts=("sasc/relevant.", "sasc/baseline."), reply=made_up)
