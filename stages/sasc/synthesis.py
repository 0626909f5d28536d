"""Where texts for and against an explanation come from: a language model that writes them, or passages of the corpus."""

import json

import numpy as np

from pipeline.llm.engine import Engine, EngineError, Message, PromptTooLong, Refused, Request
from pipeline.prompts import render
from stages.sasc.lists import SCHEMA, read_texts
from stages.sasc.retrieval import RetrievedSynthesizer
from stages.sasc.texts import Synthesizer, Texts, usable

__all__ = ["LanguageModelSynthesizer", "RetrievedSynthesizer", "Synthesizer", "Texts"]

PROMPTS = ("sasc/relevant.v1", "sasc/baseline.v1")
AT_A_TIME = 10
"""Texts asked for in one request."""
ATTEMPTS = 3
"""Requests for what is missing, beside those that would do if every text were usable."""
TOKENS = 70
"""Of a text, with its number; a reply may have as many for each text asked for."""
TEMPERATURE = 1.0


class LanguageModelSynthesizer:
    """Asks for texts that fit the explanation, and for texts that do not (Singh et al. 2023, section 3).

    What comes back is read as a list and checked: no text twice, in either kind, none that repeats the request, none that is
    no text. What is missing is asked for again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """Up to `count` texts of each kind; `error` says why there are fewer."""
        relevant = await self._kind(PROMPTS[0], explanation, count, seed, [])
        baseline = await self._kind(PROMPTS[1], explanation, count, seed + 1, relevant.texts)
        return Texts(
            relevant.texts,
            baseline.texts,
            "written",
            self._engine.name,
            PROMPTS,
            (relevant.prompt_tokens, baseline.prompt_tokens),
            (relevant.completion_tokens, baseline.completion_tokens),
            relevant.error or baseline.error,
        )

    async def _kind(self, prompt_id: str, explanation: str, count: int, seed: int, taken: list[str]) -> "_Written":
        written = _Written()
        as_json = (await self._engine.abilities()).json_schema
        for attempt in range(-(-count // AT_A_TIME) + ATTEMPTS):
            wanted = min(AT_A_TIME, count - len(written.texts))
            messages = _messages(prompt_id, explanation, wanted, as_json)
            request = Request(
                messages, TOKENS * wanted, temperature=TEMPERATURE, seed=_seed(seed, attempt),
                schema=SCHEMA if as_json else None, attempt=attempt,
            )  # fmt: skip
            try:
                (reply, *_) = await self._engine.complete(request)
            except Refused as error:
                written.spend(error.prompt_tokens, error.completion_tokens)
                written.error = f"refused: {error}"
                continue
            except EngineError as error:
                written.error = f"{'too long: ' if isinstance(error, PromptTooLong) else ''}{error}"
                break
            written.spend(reply.prompt_tokens, reply.completion_tokens)
            asked = "\n".join(message.content for message in messages)
            read = read_texts(reply.text, finished=reply.finished, wanted=wanted)
            written.texts += usable(read, [*taken, *written.texts], asked)[:wanted]
            if len(written.texts) >= count:
                written.error = ""
                break
            written.error = (
                f"{len(written.texts)} of {count} texts could be used; the last reply was {reply.text[:80]!r}"
            )
        return written


def stand_in(request: Request, number: int) -> str:
    """A reply as a language model could give it: as many texts as were asked for, others for each number."""
    texts = [
        f"In {1 + number * AT_A_TIME + place} the old ship left the harbour again, and nobody in the town knew when it would return."
        for place in range(request.max_tokens // TOKENS)
    ]
    if request.schema:
        return json.dumps({"texts": texts})
    return "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1))


class _Written:
    """Texts of one kind and what they took."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.prompt_tokens = self.completion_tokens = 0
        self.error = ""

    def spend(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens


def _messages(prompt_id: str, explanation: str, count: int, as_json: bool) -> tuple[Message, ...]:
    return (
        Message("system", render(prompt_id, part="system", as_json=as_json).strip()),
        Message(
            "user", render(prompt_id, part="request", explanation=explanation, count=count, as_json=as_json).strip()
        ),
    )


def _seed(seed: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
