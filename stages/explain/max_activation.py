"""Explains a unit by showing a language model its strongest texts with the tokens marked that it responds to."""

from pipeline.llm.engine import Engine
from stages.evidence import Evidence
from stages.explain.asking import Part, ask
from stages.explain.base import Candidate
from stages.explain.examples import conversation, few_shot, question
from stages.explain.highlights import highlight
from stages.explain.notes import take_notes

PROMPT_ID = "explain/max_activation.v1"
NOTED_PROMPT_ID = "explain/max_activation.v2"
"""For units of which more is known than marked texts; see `notes`."""


class MaxActivationExplainer:
    """Asks what the marked tokens of the unit's strongest texts have in common.

    A prompt that does not fit the model's context loses few-shot neurons, the last first, and then exemplars, the
    weakest first. Where more is known than activations (see `notes`), it is shown too. The reply is JSON where the
    engine sees to a schema, words elsewhere.
    """

    name = "max_activation"

    def __init__(self, engine: Engine, candidates: int) -> None:
        self._engine = engine
        self._candidates = candidates

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`."""
        highlights = highlight(evidence)
        notes = take_notes(evidence, highlights)
        prompt_id = NOTED_PROMPT_ID if notes.kinds else PROMPT_ID
        texts = Part("exemplar", notes.shown, least=1)
        as_json = (await self._engine.capabilities()).json_schema
        asked = question(
            prompt_id,
            as_json,
            (few_shot(prompt_id), texts),
            lambda neurons, texts: conversation(
                prompt_id, len(neurons), as_json, notes.kinds, texts=texts, **notes.values
            ),
            notes.kinds,
        )
        return await ask(self._engine, asked, self._candidates, seed)
