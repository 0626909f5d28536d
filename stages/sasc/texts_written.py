"""Texts for and against an explanation that a language model writes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.execution.concurrency import bounded_gather
from pipeline.llm.engine import EngineError, Message, PromptTooLong, Request
from pipeline.prompts import Prompt
from stages.asking import Asker, Reply, Use
from stages.methods import Method
from stages.sasc.sasc_contracts import Texts
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


@dataclass(frozen=True)
class LanguageModelSynthesizer:
    """Asks for texts that fit the explanation, and for texts that do not (Singh et al. 2023, section 3).

    A reply is read as a list. Its texts are checked: none twice, in either kind, none that repeats the request, none that is
    no text. What is missing is asked for again.
    """

    asker: Asker
    prompts: Sequence[Prompt]
    """For relevant and for baseline texts."""

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """Up to `count` texts of each kind; `errors` say why there are fewer."""
        as_json = (await self.asker.engine.capabilities()).json_schema
        relevant, baseline = (
            _Kind(prompt, explanation, count, seed + number, as_json) for number, prompt in enumerate(self.prompts)
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
            self.asker.engine.name,
            (relevant.prompt.id, baseline.prompt.id),
            (relevant.prompt_tokens, baseline.prompt_tokens),
            (relevant.completion_tokens, baseline.completion_tokens),
            (relevant.reason(), baseline.reason()),
        )

    async def _reply(self, request: Request) -> Reply | EngineError:
        found: list[Reply] = []

        def take(reply: Reply) -> Use:
            found.append(reply)
            return Use.ALL if _read(request, reply) else Use.NOTHING

        return await self.asker.ask(lambda _: request, take, attempts=1) or found[0]


@dataclass
class _Kind:
    """The texts for an explanation, or those against it, and what they took."""

    prompt: Prompt
    explanation: str
    count: int
    seed: int
    as_json: bool
    texts: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _requests: int = 0
    _error: str = ""
    _ended: bool = False

    def requests(self) -> list[Request]:
        """For what is missing, of at most AT_A_TIME texts each; none after an error that is no refusal."""
        missing = 0 if self._ended else self.count - len(self.texts)
        return [self._request(min(AT_A_TIME, missing - first)) for first in range(0, missing, AT_A_TIME)]

    def take(self, request: Request, reply: Reply | EngineError, taken: list[str]) -> None:
        """Keep what can be used of a reply.

        Args:
            taken: texts that there are, of both kinds.
        """
        if isinstance(reply, EngineError):
            self._error = f"{'too long: ' if isinstance(reply, PromptTooLong) else ''}{reply}"
            self._ended = True
            return
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if reply.refusal:
            self._error = f"refused: {reply.refusal}"
            return
        asked = "\n".join(message.content for message in request.messages)
        self.texts += usable(_read(request, reply), taken, asked)[: self.count - len(self.texts)]
        self._error = f"{len(self.texts)} of {self.count} texts could be used; the last reply was {reply.text[:80]!r}"

    def reason(self) -> str:
        """Why there are fewer texts than were wanted; empty where there are not."""
        return self._error if len(self.texts) < self.count else ""

    def _request(self, wanted: int) -> Request:
        number, self._requests = self._requests, self._requests + 1
        values = {"explanation": self.explanation, "count": wanted, "as_json": self.as_json}
        messages = (
            Message("system", self.prompt.part("system", as_json=self.as_json)),
            Message("user", self.prompt.part("request", **values)),
        )
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        schema = SCHEMA if self.as_json else None
        return Request(messages, TOKENS * wanted, temperature=TEMPERATURE, seed=seed, schema=schema, attempt=number)


def _read(request: Request, reply: Reply) -> list[str]:
    """The texts in a reply."""
    wanted = request.max_tokens // TOKENS
    return [text for one in reply.completions for text in read_texts(one.text, finished=one.finished, wanted=wanted)]


def made_up(request: Request, number: int) -> str:
    """A reply as a language model could give it: as many texts as were asked for, others for each number."""
    texts = [
        f"In {1 + number * AT_A_TIME + place} the old ship left the harbour again, and nobody in the town knew when it would return."
        for place in range(request.max_tokens // TOKENS)
    ]
    if request.schema:
        return json.dumps({"texts": texts})
    return "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1))


METHOD = Method(
    "a language model writes them (Singh et al. 2023)",
    lambda _, asker, prompts: LanguageModelSynthesizer(asker, prompts),
    prompts=PROMPTS,
    reply=made_up,
)
