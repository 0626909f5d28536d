"""Paraphrases: does a unit still fire where a language model says the same as a text in other words? No explanation is read.

The score is the share of rewordings of texts that fire the unit on which it still fires. A unit that answers to what texts are about
scores high; one that answers to single words or spellings does not. Texts that do not fire it are reworded too: what of these does is in
the counts, and `balanced_accuracy` has both.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.stage import Context
from pipeline.llm.engine import Message, Request
from pipeline.prompts import Prompt
from stages.asking import Asker, Reply, Use, greedy_request
from stages.few_shot import marked_text
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts
from stages.judge.new_texts import NO_NUMBER, NewTexts, refuse_other_subject
from stages.methods import Method
from stages.sasc.text_lists import read_texts
from stages.settings import Judge

COUNT = 10
"""Texts that fire the unit, and as many that do not, that are reworded."""
TOKENS = 100
"""Of a text, with its number; a reply may have as many for each."""


class ParaphraseScorer(ExampleScorer):
    """Has the texts of a unit reworded and runs the subject on the new ones."""

    number = "precision"
    chance = None
    reads_explanation = False

    def __init__(self, asker: Asker, prompt: Prompt, responses: NewTexts, judge: Judge) -> None:
        self.model, self.prompt_id = asker.engine.name, prompt.id
        self._asker, self._prompt, self._responses, self._judge = asker, prompt, responses, judge

    def items(self, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:  # noqa: ARG002 - the contract
        """The texts to reword, on one line each; whether they fit is that of the texts themselves."""
        count = min(COUNT, len(unit.fitting))
        return [
            Item("paraphrase", marked_text(one.tokens, [False] * len(one.tokens)), fits)
            for fits, exemplars in ((True, unit.fitting[:count]), (False, unit.others[:count]))
            for one in exemplars
        ]

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:  # noqa: ARG002 - the contract
        """For each text whether the unit fires on its rewording, where it fires on the text."""
        together = self._judge.texts
        parts = [items[start : start + together] for start in range(0, len(items), together)]
        reworded = [one for part in await bounded_gather(self._reword, parts, max(len(parts), 1)) for one in part]
        if self.only_asks:
            return []
        texts = [text for text, _ in reworded if text]
        peaks = iter(self._responses.peaks(unit.module, unit.index, unit.polarity, texts).tolist())
        judged: Judged = []
        for item, (text, answer) in zip(items, reworded, strict=True):
            peak = next(peaks) if text else np.nan
            if text and not np.isfinite(peak):
                answer = Answer(None, error=NO_NUMBER)
            says = None if answer.error else item.fits
            new = Item(item.band, text, bool(peak > unit.fires_above))
            judged.append((new, Answer(**{**vars(answer), "says": says})))
        return judged

    async def _reword(self, items: Sequence[Item]) -> list[tuple[str, Answer]]:
        """The rewording of each text, empty with an error where there is none; the first carries the request's tokens."""
        found: list[str] = []
        fault, read, written = "", 0, 0

        def take(reply: Reply) -> Use:
            nonlocal found, fault, read, written
            read, written = read + reply.prompt_tokens, written + reply.completion_tokens
            texts = [
                text
                for one in reply.completions
                for text in read_texts(one.text, finished=one.finished, wanted=len(items))
            ]
            if len(texts) == len(items):
                found = texts
                return Use.ALL
            fault = f"the reply has {len(texts)} texts in the place of {len(items)}: {reply.text[:80]!r}"
            return Use.NOTHING

        try:
            error = await self._asker.ask(lambda attempt: self._request([item.text for item in items], attempt), take)
        except Exception as stopped:
            if stops_the_shard(stopped):
                raise
            fault, error = f"{type(stopped).__name__}: {stopped}", None
        texts = found or [""] * len(items)
        return [
            (text, Answer(None, error="" if found else str(error or fault), prompt_tokens=0 if place else read,
                          completion_tokens=0 if place else written))
            for place, text in enumerate(texts)
        ]  # fmt: skip

    def _request(self, texts: Sequence[str], attempt: int) -> Request:
        messages = (
            Message("system", self._prompt.part("system")),
            Message("user", self._prompt.part("request", texts=texts)),
        )
        return greedy_request(messages, self._judge.max_tokens or TOKENS * len(texts), "\n\n\n", attempt)


def _build(context: Context, asker: Asker, prompts: Sequence[Prompt]) -> ParaphraseScorer:
    return ParaphraseScorer(asker, prompts[0], NewTexts(context), context.config[Judge])


PARAPHRASES = Method(
    "the share of rewordings of texts that fire the unit on which it still does; no explanation is read",
    _build,
    prompts=("judge/paraphrase.v1",),
    check=refuse_other_subject,
)
