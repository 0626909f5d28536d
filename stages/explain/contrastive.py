"""Explains a unit by its strongest texts and by texts like them to which it does not respond."""

from pipeline.evidence import Evidence
from pipeline.llm.engine import Engine
from stages.explain.asking import Part, ask
from stages.explain.base import Candidate
from stages.explain.examples import conversation, few_shot, question
from stages.explain.highlights import highlight, look_alikes

PROMPT_ID = "explain/contrastive.v1"


class ContrastiveExplainer:
    """Asks what the marked tokens have in common that nothing in the look-alikes has.

    A prompt that does not fit the model's context loses counter-examples, the least like first, then few-shot neurons,
    the last first, and then exemplars, the weakest first. A unit that is low on no text of its evidence is asked about
    without counter-examples. The reply is JSON where the engine sees to a schema, words elsewhere.
    """

    name = "contrastive"

    def __init__(self, engine: Engine, candidates: int) -> None:
        self._engine = engine
        self._candidates = candidates

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`."""
        highlights = highlight(evidence)
        others = Part("counter-example", look_alikes(evidence, highlights))
        texts = Part("exemplar", highlights.texts, least=1)
        as_json = (await self._engine.abilities()).json_schema
        asked = question(
            PROMPT_ID,
            as_json,
            (others, few_shot(PROMPT_ID), texts),
            lambda others, neurons, texts: conversation(PROMPT_ID, len(neurons), as_json, texts=texts, others=others),
        )
        return await ask(self._engine, asked, self._candidates, seed)
