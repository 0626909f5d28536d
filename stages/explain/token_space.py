"""Explains a unit by the list of the tokens with its highest mean activation (Bills et al. 2023)."""

from dataclasses import dataclass

import numpy as np

from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.evidence import Evidence
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.question import Part, ask_in_words, few_shot
from stages.few_shot import normalised, show_token
from stages.methods import Method
from stages.settings import Explain

TOKENS = 50
"""Tokens shown at most."""
STEP = 10
"""Tokens left out at a time of a prompt that does not fit."""


@dataclass(frozen=True)
class TokenSpaceExplainer:
    """Asks what the tokens with the highest mean activation have in common, whatever stands around them.

    Departure from Bills et al.: the means are shown, as numbers from 0 to 10. A prompt that does not fit the model's
    context loses few-shot neurons, the last first, and then the tokens with the lowest means.
    """

    settings: Explain
    asker: Asker
    prompt: Prompt

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask_in_words`.

        Raises:
            ExplanationError: no token with a mean above zero, besides what `ask_in_words` raises.
        """
        tokens = Part("token", shown_tokens(evidence), "tokens", least=1, step=STEP)
        return await ask_in_words(self.asker, self.settings, self.prompt, (few_shot(self.prompt), tokens), seed)


def shown_tokens(evidence: Evidence) -> list[tuple[str, int]]:
    """The strongest tokens as shown, each with its mean as a number from 0 to 10, by falling mean."""
    strong = [entry for entry in evidence.top_tokens[:TOKENS] if entry.mean_activation > 0]
    if not strong:
        raise ExplanationError("no token of the explain split has a mean activation above zero")
    (values,) = normalised([np.array([entry.mean_activation for entry in strong], dtype=np.float32)])
    return [(show_token(entry.token), value) for entry, value in zip(strong, values, strict=True)]


METHOD = Method(
    "a language model is shown the tokens with the highest mean activation (Bills et al. 2023)",
    lambda settings, asker, prompts: TokenSpaceExplainer(settings, asker, prompts[0]),
    prompts=("explain/token_space.v1",),
)
