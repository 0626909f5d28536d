"""Questions to a language model that are answered by yes or no: which texts fit, or whether the marked tokens are the right ones.

The protocol of Paulo et al. 2024: as many texts on which the unit fires, at every strength, as others, five to a request.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.stage import Context
from pipeline.llm.engine import Completion, Message, Request
from pipeline.prompts import Prompt
from stages.asking import Asker, Reply, Use, greedy_request
from stages.few_shot import marked_text, one_line, opening
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts
from stages.methods import Method
from stages.settings import Judge

ALTERNATIVES = 20
"""Asked for at each token of a reply."""
_ANSWER = re.compile(r"^[ \t]*(\d{1,4})[ \t]*[:.)][ \t]*(yes|no)\b", re.IGNORECASE | re.MULTILINE)
Choose = Callable[[Judge, UnitTexts, np.random.Generator], list[Item]]
"""The texts that are asked about."""


class YesNo(ExampleScorer):
    """Shows a language model some texts at a time and asks of each whether it fits."""

    number = "balanced_accuracy"

    def __init__(self, asker: Asker, prompt: Prompt, choose: Choose, judge: Judge) -> None:
        self.model, self.prompt_id = asker.engine.name, prompt.id
        self._asker, self._prompt, self._choose, self._judge = asker, prompt, choose, judge

    def items(self, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:
        """Its texts in an order that does not give the answers away."""
        found = self._choose(self._judge, unit, rng)
        return [found[place] for place in rng.permutation(len(found))]

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:  # noqa: ARG002 - the contract
        """An answer for each item; an error of the engine's own is the answer of the texts in its request."""

        together = self._judge.texts

        async def ask(start: int) -> list[Answer]:
            texts = [item.text for item in items[start : start + together]]
            try:
                return await answers(self._asker, self._prompt, explanation, texts, self._judge.max_tokens)
            except Exception as error:
                if stops_the_shard(error):
                    raise
                return [Answer(None, error=f"{type(error).__name__}: {error}") for _ in texts]

        starts = range(0, len(items), together)
        parts = await bounded_gather(ask, starts, max(len(starts), 1))
        return list(zip(items, [answer for part in parts for answer in part], strict=True))


def yes_no(summary: str, prompt: str, choose: Choose) -> Method:
    """A method that asks about the texts that are chosen."""

    def build(context: Context, asker: Asker, prompts: Sequence[Prompt]) -> YesNo:
        return YesNo(asker, prompts[0], choose, context.config[Judge])

    return Method(summary, build, prompts=(prompt,))


def shown_texts(judge: Judge, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:  # noqa: ARG001 - the contract
    """Every text of a unit, without marks."""
    found = []
    for fits, exemplars in ((True, unit.fitting), (False, unit.others)):
        for place, one in enumerate(exemplars):
            text = marked_text(one.tokens, [False] * len(one.tokens))
            found.append(Item(one.band, text, fits, one.seq_id, unit.deciles[place] if fits else None))
    return found


async def answers(
    asker: Asker, prompt: Prompt, explanation: str, texts: Sequence[str], max_tokens: int | None = None
) -> list[Answer]:
    """One answer for each text, in order, from one request; from another where the reply lacks one of them.

    Args:
        max_tokens: of a reply; as many as the answers need unless given.
    """
    found: list[Answer] = []
    fault = ""
    prompt_tokens = completion_tokens = 0

    def take(reply: Reply) -> Use:
        nonlocal found, fault, prompt_tokens, completion_tokens
        prompt_tokens += reply.prompt_tokens
        completion_tokens += reply.completion_tokens
        found, fault = read_reply(reply.completions[0], len(texts)) if reply.completions else ([], reply.refusal)
        return Use.NOTHING if fault else Use.ALL

    error = await asker.ask(lambda attempt: request(prompt, explanation, texts, max_tokens, attempt), take)
    first, *rest = found or [Answer(None, error=str(error or fault))] * len(texts)
    return [replace(first, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens), *rest]


def request(
    prompt: Prompt, explanation: str, texts: Sequence[str], max_tokens: int | None = None, attempt: int = 0
) -> Request:
    """The question about some texts; the few-shot questions before it are the same for all."""
    asked = prompt.part("question", explanation=one_line(explanation), texts=texts)
    messages = (*opening(prompt, _shots), Message("user", asked))
    most = max_tokens or 20 + 8 * len(texts)
    return greedy_request(messages, most, "\nThe neuron", attempt, logprobs=ALTERNATIVES)


def read_reply(reply: Completion, count: int) -> tuple[list[Answer], str]:
    """The answers of a reply to `count` texts, and what is wrong with it, if anything is."""
    found = list(_ANSWER.finditer(reply.text))
    numbers = [int(match[1]) for match in found]
    if numbers != list(range(1, count + 1)):
        shown = ", ".join(map(str, numbers)) or "none"
        return [], f"the reply has answers for the texts {shown}, not for 1 to {count}: {reply.text[:80]!r}"
    return [Answer(match[2].lower() == "yes", _probability(reply, match.start(2))) for match in found], ""


def _probability(reply: Completion, start: int) -> float | None:
    """P(yes) among yes and no, from the alternatives to the token that holds the answer's first letter."""
    ends = list(accumulate(len(token.text) for token in reply.tokens))
    place = next((number for number, end in enumerate(ends) if end > start), None)
    if place is None or "".join(token.text for token in reply.tokens) != reply.text:
        return None
    mass = {True: 0.0, False: 0.0}
    for text, log_probability in reply.tokens[place].alternatives:
        word = text.strip().lower()
        if word and ("yes".startswith(word) or "no".startswith(word)):
            mass["yes".startswith(word)] += math.exp(log_probability)
    total = mass[True] + mass[False]
    return mass[True] / total if total > 0 else None


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for shown in prompt.examples()["question"]:
        asked = prompt.part("question", explanation=shown["explanation"], texts=shown["texts"])
        yield asked, "".join(f"\n{number}: {answer}" for number, answer in enumerate(shown["answers"], 1))


DETECTION = yes_no("which texts fit", "judge/detection.v1", shown_texts)
