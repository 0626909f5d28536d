"""Sensitivity: does a unit fire on new texts for an explanation? They are retrieved from the corpus, or a language model writes them.

The texts are made as SASC makes them (Singh et al. 2023), for the explanation of any unit: ten for it, which should fire the unit, and ten
against it. The score is the share of those for it on which the unit's maximum is above the bound of `judged_texts`. Beside it stand the
same share for texts made for other explanations, and the share of the sequences of the corpus that fire the unit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.execution.stage import Context
from pipeline.prompts import Prompt
from pipeline.schemas import CORPUS
from pipeline.subjects.loading.model_source import resolve_model, with_revision
from stages.asking import Asker
from stages.evidence import split_of
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts
from stages.judge.new_texts import NO_NUMBER, NewTexts, refuse_other_subject
from stages.methods import Method
from stages.sasc.by_language_model import WRITE, LanguageModelSynthesizer, made_up_texts
from stages.sasc.synthesize import Synthesizer, Texts
from stages.sasc.texts_retrieved import PASSAGES, RetrievedSynthesizer, cut_passages
from stages.settings import Simulate
from stages.units import draw

COUNT = 10
"""Texts for an explanation, and as many against it."""


class SensitivityScorer(ExampleScorer):
    """Runs the subject on texts made for explanations; those for one are made once, whichever units are asked."""

    number = "precision"
    chance = None

    def __init__(self, synthesizer: Synthesizer, responses: NewTexts, band: str, seed: int, model: str) -> None:
        self.model = model
        self._synthesizer, self._responses, self._band, self._seed = synthesizer, responses, band, seed
        self._made: dict[str, Texts] = {}

    def items(self, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:  # noqa: ARG002 - the contract
        """None: what is asked about follows from the explanation."""
        return []

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:  # noqa: ARG002 - the contract
        """Texts for and against the explanation: whether the unit fires on them, where it should on those for it."""
        if explanation not in self._made:
            seed = int(draw(self._seed, f"new texts/{explanation}").integers(2**31))
            self._made[explanation] = await self._synthesizer.write(explanation, COUNT, seed)
        made = self._made[explanation]
        texts = [*made.relevant, *made.baseline]
        if not texts:
            missing = made.errors[0] or "there are no texts for the explanation"
            return [(Item(self._band, "", True), Answer(None, error=missing))]
        if self.only_asks:
            return []
        peaks = self._responses.peaks(unit.module, unit.index, unit.polarity, texts)
        judged: Judged = []
        for place, (text, peak) in enumerate(zip(texts, peaks, strict=True)):
            item = Item(self._band, text, bool(peak > unit.fires_above))
            says = Answer(place < len(made.relevant)) if np.isfinite(peak) else Answer(None, error=NO_NUMBER)
            judged.append((item, says))
        first = judged[0][1]
        taken = {"prompt_tokens": sum(made.prompt_tokens), "completion_tokens": sum(made.completion_tokens)}
        judged[0] = (judged[0][0], Answer(**{**vars(first), **taken}))
        return judged


def _report_passages(context: Context) -> list[str]:
    """Sentences of the split report, at most PASSAGES of them, drawn by the seed."""
    rows = context.tables.read(CORPUS, columns=["seq_id", "start", "tokens"]).sort_by("seq_id").to_pylist()
    texts = (("".join(row["tokens"]), row["start"] == 0) for row in rows if split_of(row["seq_id"]) == "report")
    return cut_passages(texts, PASSAGES, draw(context.config.run.seed, "passages"))


def _retrieved(context: Context, *_: object) -> SensitivityScorer:
    from pipeline.subjects.embedder import load_embedder

    embedder, seed = load_embedder(context.config[Simulate].embedder), context.config.run.seed
    synthesizer = RetrievedSynthesizer(_report_passages(context), embedder)
    model = with_revision(embedder.name, embedder.revision)
    return SensitivityScorer(synthesizer, NewTexts(context), "retrieved", seed, model)


def _written(context: Context, asker: Asker, prompts: Sequence[Prompt]) -> SensitivityScorer:
    synthesizer, seed = LanguageModelSynthesizer(asker, prompts), context.config.run.seed
    scorer = SensitivityScorer(synthesizer, NewTexts(context), "written", seed, asker.engine.name)
    scorer.prompt_id = prompts[0].id
    return scorer


def _settings(config: RunConfig) -> dict[str, Any]:
    return {"embedder": resolve_model(config[Simulate].embedder).revision}


RETRIEVED = Method(
    "the share of sentences near to the explanation, of the split report, that fire the unit",
    _retrieved,
    "none",
    settings=_settings,
    check=refuse_other_subject,
)
WRITTEN = Method(
    "the share of texts written for the explanation that fire the unit",
    _written,
    prompts=WRITE,
    check=refuse_other_subject,
    reply=made_up_texts,
)
