"""`intruder`: which of some texts does not belong to the others? No explanation is read: the score is of the unit (Paulo et al. 2025).

In each question all texts but one are of the same strength, with the tokens marked to which the unit responds. The intruder is a text that
does not fit, with as many marked tokens as those have on average. Who guesses is right in one of judge.texts questions.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.stage import Context
from pipeline.llm.engine import Message, Request
from pipeline.prompts import Prompt
from stages.asking import Asker, Reply, Use, greedy_request
from stages.few_shot import marked_text, opening
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts
from stages.judge.fuzzing import responds, wrong_marks
from stages.judge.text_choice import DECILES
from stages.methods import Method
from stages.settings import Judge

MAX_TOKENS = 16
_NUMBER = re.compile(r"\d+")


class IntruderScorer(ExampleScorer):
    """Asks a question for each text that does not fit; the item of a question is that text."""

    number = "accuracy"
    reads_explanation = False

    def __init__(self, asker: Asker, prompt: Prompt, together: int, max_tokens: int | None = None) -> None:
        """together: texts of a question."""
        self.chance = 1 / together
        self.model, self.prompt_id, self._asker, self._prompt = asker.engine.name, prompt.id, asker, prompt
        self._together, self._max_tokens = together, max_tokens or MAX_TOKENS

    def items(self, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:
        """Questions, each with its texts on a line of their own; groups of texts of the same strength take turns."""
        majority = self._together - 1
        strongest_first = sorted(range(len(unit.fitting)), key=lambda place: unit.deciles[place])
        count = min(DECILES, len(strongest_first) // majority)
        groups = np.array_split(np.array(strongest_first, np.int64), count) if count else []
        found = []
        for number, intruder in enumerate(unit.others if count else ()):
            drawn = rng.permutation(groups[number % count])[:majority]
            marks = [responds(unit.fitting[place]) for place in drawn]
            wrong = wrong_marks(intruder, max(1, round(float(np.mean([one.sum() for one in marks])))), rng)
            if wrong is None:
                continue
            shown = [
                marked_text(unit.fitting[place].tokens, own.tolist()) for place, own in zip(drawn, marks, strict=True)
            ]
            at = int(rng.integers(self._together))
            shown.insert(at, marked_text(intruder.tokens, wrong.tolist()))
            found.append(Item(intruder.band, "\n".join(shown), False, intruder.seq_id, place=at + 1))
        return found

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:  # noqa: ARG002 - the contract
        """For each question whether its intruder was taken to fit."""
        answers = await bounded_gather(self._ask, items, max(len(items), 1))
        return list(zip(items, answers, strict=True))

    async def _ask(self, item: Item) -> Answer:
        texts = item.text.split("\n")
        reply, fault = Reply([]), ""

        def take(found: Reply) -> Use:
            nonlocal reply, fault
            reply, fault = (
                found,
                "" if _picked(found, len(texts)) else f"the reply names none of the texts: {found.text[:80]!r}",
            )
            return Use.NOTHING if fault else Use.ALL

        try:
            error = await self._asker.ask(lambda attempt: self._request(texts, attempt), take)
        except Exception as stopped:
            if stops_the_shard(stopped):
                raise
            return Answer(None, error=f"{type(stopped).__name__}: {stopped}")
        answer = Answer(None, error=str(error or fault))
        if not answer.error:
            answer = Answer(_picked(reply, len(texts)) != item.place)
        return replace(answer, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)

    def _request(self, texts: Sequence[str], attempt: int) -> Request:
        asked = self._prompt.part("question", texts=texts)
        messages = (*opening(self._prompt, _shots), Message("user", asked))
        return greedy_request(messages, self._max_tokens, "\n\n", attempt)


def _picked(reply: Reply, count: int) -> int | None:
    """The number in a reply; None unless it has one alone, of one of `count` texts."""
    found = {int(match[0]) for match in _NUMBER.finditer(reply.text)} if reply.completions else set()
    return found.pop() if len(found) == 1 and found <= set(range(1, count + 1)) else None


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for shown in prompt.examples()["question"]:
        yield prompt.part("question", texts=shown["texts"]), str(shown["answer"])


def _build(context: Context, asker: Asker, prompts: Sequence[Prompt]) -> IntruderScorer:
    judge = context.config[Judge]
    return IntruderScorer(asker, prompts[0], judge.texts, judge.max_tokens)


INTRUDER = Method("which of some texts does not belong; no explanation is read", _build, prompts=("judge/intruder.v1",))
