"""Explains a unit by the list of the tokens with its highest mean activation (Bills et al. 2023)."""

import numpy as np

from pipeline.llm.engine import Engine
from stages.evidence import Evidence
from stages.explain.asking import Part, ask
from stages.explain.base import Candidate, ExplanationError
from stages.explain.examples import conversation, few_shot, question
from stages.token_lines import normalised, show_token

PROMPT_ID = "explain/token_space.v1"
TOKENS = 50
"""Tokens shown at most."""
STEP = 10
"""Tokens left out at a time of a prompt that does not fit."""


class TokenSpaceExplainer:
    """Asks what the tokens with the highest mean activation have in common, whatever stands around them.

    Departure from Bills et al.: the means are shown, as numbers from 0 to 10. A prompt that does not fit the model's
    context loses few-shot neurons, the last first, and then the tokens with the lowest means. The reply is JSON where
    the engine sees to a schema, words elsewhere.
    """

    name = "token_space"

    def __init__(self, engine: Engine, candidates: int) -> None:
        self._engine = engine
        self._candidates = candidates

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`.

        Raises:
            ExplanationError: no token with a mean above zero, besides what `ask` raises.
        """
        tokens = Part("token", shown_tokens(evidence), least=1, step=STEP)
        as_json = (await self._engine.capabilities()).json_schema
        asked = question(
            PROMPT_ID,
            as_json,
            (few_shot(PROMPT_ID), tokens),
            lambda neurons, tokens: conversation(PROMPT_ID, len(neurons), as_json, tokens=tokens),
        )
        return await ask(self._engine, asked, self._candidates, seed)


def shown_tokens(evidence: Evidence) -> list[tuple[str, int]]:
    """The strongest tokens as shown, each with its mean as a number from 0 to 10, by falling mean."""
    strong = [entry for entry in evidence.top_tokens[:TOKENS] if entry.mean_activation > 0]
    if not strong:
        raise ExplanationError("no token of the explain split has a mean activation above zero")
    (values,) = normalised([np.array([entry.mean_activation for entry in strong], dtype=np.float32)])
    return [(show_token(entry.token), value) for entry, value in zip(strong, values, strict=True)]
