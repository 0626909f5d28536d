"""Asking a language model about a unit: the longest prompt that fits, replies until there are enough, candidates."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.llm.engine import Completion, Message, PromptTooLong, Request
from pipeline.prompts import Prompt
from stages.asking import ATTEMPTS, Asker, Reply, Use
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.explanation_reply import SCHEMA, Said, read_explanation
from stages.few_shot import opening
from stages.settings import Explain

MAX_TOKENS = 100
"""Of a reply that is a sentence or JSON, unless explain.max_tokens says otherwise."""
STOP = ("\nTexts of neuron", "\nTokens of neuron")
"""Where a model that only completes texts goes on with a neuron of its own making."""


@dataclass(frozen=True)
class Part:
    """Things of one kind that a prompt shows."""

    name: str
    """In the singular, such as "exemplar"."""
    items: Sequence[Any]
    """The most important first."""
    fills: str
    """Name of the value of the prompt that they become."""
    least: int = 0
    """This many have to stay."""
    step: int = 1
    """How many are left out at a time."""


@dataclass(frozen=True)
class Question:
    """What an explainer asks about one unit."""

    prompt_id: str
    parts: Sequence[Part]
    """In the order in which they are left out of a prompt that does not fit: all of the first, then of the second."""
    write: Callable[..., tuple[Message, ...]]
    """The conversation that shows the given items, by what they fill."""
    read: Callable[[Completion], Said]
    """The explanation in a reply; an empty text where the reply cannot be used."""
    max_tokens: int
    temperature: float = 1.0
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None


async def ask(asker: Asker, question: Question, candidates: int, seed: int) -> list[Candidate]:
    """Different replies to one prompt, in the order in which they were drawn, at most `candidates`.

    Their token counts add up to what the unit took: the first one carries every prompt and every reply that was not
    usable. A reply that says the same as another is no candidate of its own and is not asked for again. One that the
    token limit cut off is a candidate only where there are too few whole ones.

    Raises:
        ExplanationError: no prompt fits, the request fails, or no reply of ATTEMPTS requests was usable.
    """
    too_long = ""
    for counts in shapes(question.parts):
        shown = {part.fills: part.items[:count] for part, count in zip(question.parts, counts, strict=True)}
        messages = question.write(**shown)
        context = asker.engine.context
        if context is not None and asker.engine.count_tokens(messages) + question.max_tokens > context:
            too_long = f"does not fit the model's context of {context} tokens"
            continue
        drawn = _Drawn(question, messages, candidates, seed)
        error = await asker.ask(drawn.request, drawn.take)
        if isinstance(error, PromptTooLong) and not drawn.usable:
            too_long = f"is too long: {error}"
            continue
        if not drawn.usable:
            reason = str(error or f"no usable reply in {ATTEMPTS} requests; the last one was {drawn.last[:80]!r}")
            raise ExplanationError(reason, drawn.prompt_tokens, drawn.wasted) from error
        return drawn.candidates(asker.engine.name, left_out(question.parts, counts))
    least = ", ".join(_counted(part.name, part.least) for part in question.parts if part.least)
    raise ExplanationError(f"a prompt with {least} alone {too_long}")


def shapes(parts: Sequence[Part]) -> Iterator[tuple[int, ...]]:
    """How many items of each part to show, from all to the least; the first part shrinks first."""
    shown = [len(part.items) for part in parts]
    yield tuple(shown)
    for place, part in enumerate(parts):
        while shown[place] > part.least:
            shown[place] = max(shown[place] - part.step, part.least)
            yield tuple(shown)


def left_out(parts: Sequence[Part], counts: Sequence[int]) -> str:
    """What is not shown, such as "2 few-shot examples, 1 exemplar"."""
    missing = [(part.name, len(part.items) - count) for part, count in zip(parts, counts, strict=True)]
    return ", ".join(_counted(name, count) for name, count in missing if count)


def _counted(name: str, count: int) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


@dataclass
class _Drawn:
    """The replies to one prompt so far, and what they took."""

    question: Question
    messages: tuple[Message, ...]
    wanted: int
    seed: int
    usable: list[tuple[Said, Completion]] = field(default_factory=list)
    prompt_tokens: int = 0
    wasted: int = 0
    """Tokens of replies that were not usable."""
    last: str = ""

    @property
    def missing(self) -> int:
        return self.wanted - sum(said.whole for said, _ in self.usable)

    def request(self, attempt: int) -> Request:
        """For what is missing, each time with another seed."""
        seed = int(np.random.SeedSequence([self.seed, attempt]).generate_state(1)[0])
        asked, shown = self.question, self.messages
        drawn = (asked.max_tokens, self.missing, asked.temperature, asked.stop, seed, asked.schema)
        return Request(shown, *drawn, attempt=attempt)

    def take(self, reply: Reply) -> Use:
        """Keep what can be used of a reply."""
        self.prompt_tokens += reply.prompt_tokens
        self.last = reply.text
        found = [(self.question.read(one), one) for one in reply.completions]
        used = [(said, one) for said, one in found if said.text]
        self.usable += used
        self.wasted += reply.completion_tokens - sum(one.completion_tokens for _, one in used)
        return Use.ALL if self.missing <= 0 else Use.SOME if used else Use.NOTHING

    def candidates(self, model: str, dropped: str) -> list[Candidate]:
        """A candidate for each different text, whole ones first; tokens of a repeated text go to its first."""
        spent = dict.fromkeys((said for said, _ in sorted(self.usable, key=lambda pair: not pair[0].whole)), 0)
        for said, reply in self.usable:
            spent[said] += reply.completion_tokens
        whole = [said for said in spent if said.whole]
        kept = whole + list(spent)[len(whole) :][: max(self.missing, 0)]
        spent[kept[0]] += self.wasted + sum(tokens for said, tokens in spent.items() if said not in kept)
        prompts = [self.prompt_tokens] + [0] * len(kept)
        replies = {said: reply.text for said, reply in reversed(self.usable)}
        by, asked = (self.question.prompt_id, model), self.messages[-1].content
        return [
            Candidate(said.text, *by, read, spent[said], dropped, not said.whole, asked, replies[said])
            for said, read in zip(kept, prompts, strict=False)
        ]


def few_shot(prompt: Prompt) -> Part:
    """The few-shot neurons of a prompt; the last one is left out first."""
    return Part("few-shot example", prompt.examples()["neuron"], "neurons")


async def ask_in_words(
    asker: Asker,
    settings: Explain,
    prompt: Prompt,
    parts: Sequence[Part],
    seed: int,
    notes: tuple[str, ...] = (),
    **values: object,
) -> list[Candidate]:
    """Candidates for a unit that is shown behind few-shot neurons; replies are JSON where the engine sees to schemas, else a sentence.

    Args:
        prompt: one with the parts `few_shot`, `system` and `neuron`.
        parts: `few_shot(prompt)` among them; the others are values of the part `neuron`.
        notes: what is shown beside the texts, of few-shot neurons too: kinds of notes, for prompts that know them.
        values: further values of the part `neuron`; a few-shot neuron brings its own by the same names.
    """
    as_json = (await asker.engine.capabilities()).json_schema
    instruction = prompt.part("system", as_json=as_json, notes=notes)

    def write(neurons: Sequence[object], **shown: object) -> tuple[Message, ...]:
        before = opening(prompt, _shots, len(neurons), as_json=as_json, notes=notes)
        own = {"number": len(neurons) + 1, "as_json": as_json, "notes": notes, **values}
        return (*before, Message("user", prompt.part("neuron", **own, **shown)))

    def read(reply: Completion) -> Said:
        return read_explanation(reply, instruction)

    most, schema = settings.max_tokens or MAX_TOKENS, SCHEMA if as_json else None
    question = Question(prompt.id, parts, write, read, most, settings.temperature, STOP, schema)
    return await ask(asker, question, settings.candidates, seed)


def _shots(prompt: Prompt, as_json: bool, notes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for number, neuron in enumerate(prompt.examples()["neuron"], 1):
        shown = {name: value for name, value in neuron.items() if name != "explanation"}
        explanation = neuron["explanation"] + "."
        answer = json.dumps({"explanation": explanation}, ensure_ascii=False) if as_json else explanation
        yield prompt.part("neuron", number=number, as_json=as_json, notes=notes, **shown), answer
