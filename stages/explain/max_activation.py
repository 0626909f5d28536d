"""Explains a unit by showing a language model its strongest texts with the tokens marked that it responds to."""

from pipeline.evidence import Evidence
from pipeline.llm.engine import Engine
from stages.explain.asking import Part, ask
from stages.explain.base import Candidate
from stages.explain.examples import conversation, few_shot, question
from stages.explain.highlights import highlight

PROMPT_ID = "explain/max_activation.v1"


class MaxActivationExplainer:
    """Asks what the marked tokens of the unit's strongest texts have in common.

    A prompt that does not fit the model's context loses few-shot neurons, the last first, and then exemplars, the
    weakest first. The reply is JSON where the engine sees to a schema, words elsewhere.
    """

    name = "max_activation"

    def __init__(self, engine: Engine, candidates: int) -> None:
        self._engine = engine
        self._candidates = candidates

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`."""
        texts = highlight(evidence).texts
        as_json = (await self._engine.abilities()).json_schema
        asked = question(
            PROMPT_ID,
            as_json,
            (few_shot(PROMPT_ID), Part("exemplar", texts, least=1)),
            lambda neurons, texts: conversation(PROMPT_ID, len(neurons), as_json, texts=texts),
        )
        return await ask(self._engine, asked, self._candidates, seed)
