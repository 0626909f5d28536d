"""Explains a unit by its strongest texts and by texts like them to which it does not respond."""

from typing import Literal

from pipeline.llm.engine import Engine
from stages.evidence import Evidence
from stages.explain.asking import Part, ask
from stages.explain.base import Candidate
from stages.explain.examples import conversation, few_shot, question
from stages.explain.highlights import hard_negatives, highlight, look_alikes
from stages.explain.notes import take_notes

PROMPT_ID = "explain/contrastive.v1"
NOTED_PROMPT_ID = "explain/contrastive.v2"
"""For units of which more is known than marked texts; see `notes`."""


class ContrastiveExplainer:
    """Asks what the marked tokens have in common that nothing in the look-alikes has.

    A prompt that does not fit the model's context loses counter-examples, the least like first, then few-shot neurons,
    the last first, and then exemplars, the weakest first. A unit that is low on no text of its evidence is asked about
    without counter-examples. Where more is known than activations (see `notes`), it is shown too. The reply is JSON where
    the engine sees to a schema, words elsewhere.

    Args:
        negatives: what the counter-examples are: recorded texts that share tokens with the exemplars, or hard negatives.
    """

    name = "contrastive"

    def __init__(
        self, engine: Engine, candidates: int, negatives: Literal["look_alikes", "hard"] = "look_alikes"
    ) -> None:
        self._engine = engine
        self._candidates = candidates
        self._find = hard_negatives if negatives == "hard" else look_alikes

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`."""
        highlights = highlight(evidence)
        notes = take_notes(evidence, highlights)
        prompt_id = NOTED_PROMPT_ID if notes.kinds else PROMPT_ID
        texts = Part("exemplar", notes.shown, least=1)
        others = Part("counter-example", self._find(evidence, highlights))
        as_json = (await self._engine.capabilities()).json_schema
        asked = question(
            prompt_id,
            as_json,
            (others, few_shot(prompt_id), texts),
            lambda others, neurons, texts: conversation(
                prompt_id, len(neurons), as_json, notes.kinds, texts=texts, others=others, **notes.values
            ),
            notes.kinds,
        )
        return await ask(self._engine, asked, self._candidates, seed)
