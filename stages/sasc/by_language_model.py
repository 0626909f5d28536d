"""What a language model is asked in SASC (Singh et al. 2023, section 3): what n-grams share, and texts for and against that."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.execution.concurrency import bounded_gather
from pipeline.llm.engine import EngineError, Message, PromptTooLong, Request
from pipeline.prompts import Prompt
from stages.asking import Asker, Reply, Use
from stages.explain import explanation_reply
from stages.explain.explain_units import Candidate
from stages.explain.question import Part, Question, ask
from stages.methods import Method
from stages.sasc import text_lists
from stages.sasc.explain_ngrams import Kept
from stages.sasc.synthesize import Texts

SUMMARISE = "sasc/summarise.v1"
MAX_TOKENS = 80
LEAST = 5
"""N-grams that a prompt has to show."""
WRITE = ("sasc/relevant.v1", "sasc/baseline.v1")
AT_A_TIME = 10
"""Texts asked for in one request."""
ROUNDS = 4
"""What is missing after the requests of one round is asked for in the next."""
TOKENS = 70
"""Of a text, with its number; a reply may have as many for each text asked for."""
TEMPERATURE = 1.0
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True)
class LanguageModelSummariser:
    """Shows the drawn n-grams and asks for their theme."""

    asker: Asker
    prompt: Prompt

    async def explain(self, drawn: Sequence[str], kept: Kept, seed: int) -> Candidate:  # noqa: ARG002 - the contract
        """See `Summariser`; a prompt that does not fit the model's context loses the last n-grams."""
        as_json = (await self.asker.engine.capabilities()).json_schema
        system = self.prompt.part("system", as_json=as_json)
        ngrams = list(dict.fromkeys(map(shown, drawn)))
        question = Question(
            self.prompt.id,
            (Part("n-gram", ngrams, "ngrams", least=min(LEAST, len(ngrams)), step=5),),
            lambda ngrams: (
                Message("system", system),
                Message("user", self.prompt.part("ngrams", ngrams=ngrams, as_json=as_json)),
            ),
            lambda reply: explanation_reply.read_explanation(reply, system),
            MAX_TOKENS,
            stop=("\nPhrases:",),
            schema=explanation_reply.SCHEMA if as_json else None,
        )
        return (await ask(self.asker, question, 1, seed))[0]


def shown(ngram: str) -> str:
    """An n-gram on one line, without the space that tokens have in front."""
    return _BREAKS.sub(lambda found: repr(found[0])[1:-1], ngram.strip()) or repr(ngram)


@dataclass(frozen=True)
class LanguageModelSynthesizer:
    """Asks for texts that fit the explanation, and for texts that do not.

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
            (relevant.error, baseline.error),
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
    error: str = ""
    """Why there are fewer texts than were wanted; empty where there are not."""
    _requests: int = 0
    _ended: bool = False

    def requests(self) -> list[Request]:
        """For what is missing, of at most AT_A_TIME texts each; none after an error that is no refusal."""
        missing = 0 if self._ended else self.count - len(self.texts)
        return [self._request(min(AT_A_TIME, missing - first)) for first in range(0, missing, AT_A_TIME)]

    def take(self, request: Request, reply: Reply | EngineError, taken: list[str]) -> None:
        """Keep what can be used of a reply, beside the texts of both kinds that are taken."""
        if isinstance(reply, EngineError):
            self._ended = True
            error = f"{'too long: ' if isinstance(reply, PromptTooLong) else ''}{reply}"
        else:
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens
            asked = "\n".join(message.content for message in request.messages)
            self.texts += text_lists.usable(_read(request, reply), taken, asked)[: self.count - len(self.texts)]
            error = f"{len(self.texts)} of {self.count} texts could be used; the last reply was {reply.text[:80]!r}"
            error = f"refused: {reply.refusal}" if reply.refusal else error
        self.error = error if len(self.texts) < self.count else ""

    def _request(self, wanted: int) -> Request:
        number, self._requests = self._requests, self._requests + 1
        values = {"explanation": self.explanation, "count": wanted, "as_json": self.as_json}
        messages = (
            Message("system", self.prompt.part("system", as_json=self.as_json)),
            Message("user", self.prompt.part("request", **values)),
        )
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        schema = text_lists.SCHEMA if self.as_json else None
        return Request(messages, TOKENS * wanted, temperature=TEMPERATURE, seed=seed, schema=schema, attempt=number)


def _read(request: Request, reply: Reply) -> list[str]:
    """The texts in a reply; a refusal has none."""
    read, wanted = text_lists.read_texts, request.max_tokens // TOKENS
    return [text for one in reply.completions for text in read(one.text, finished=one.finished, wanted=wanted)]


def made_up_theme(request: Request, number: int) -> str:
    """An explanation as a language model could give it, another one for each number."""
    text = f"words about life in towns and villages of kind {number}"
    return json.dumps({"explanation": text}) if request.schema else text


def made_up_texts(request: Request, number: int) -> str:
    """A reply as a language model could give it: as many texts as were asked for, others for each number."""
    texts = [
        f"In {1 + number * AT_A_TIME + place} the old ship left the harbour again, and nobody in the town knew when it would return."
        for place in range(request.max_tokens // TOKENS)
    ]
    if request.schema:
        return json.dumps({"texts": texts})
    return "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1))


SUMMARISER = Method(
    "a language model is shown the n-grams and says what they share (Singh et al. 2023)",
    lambda _, asker, prompts: LanguageModelSummariser(asker, prompts[0]),
    prompts=(SUMMARISE,),
    reply=made_up_theme,
)
SYNTHESIZER = Method(
    "a language model writes them (Singh et al. 2023)",
    lambda _, asker, prompts: LanguageModelSynthesizer(asker, prompts),
    prompts=WRITE,
    reply=made_up_texts,
)
