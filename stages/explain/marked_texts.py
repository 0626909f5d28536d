"""Explains a unit by showing a language model its strongest texts, with the tokens marked that it responds to.

`max_activation` shows these alone, `contrastive` texts like them beside them to which the unit does not respond.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.evidence import Evidence
from stages.explain.explain_units import Candidate
from stages.explain.highlights import Highlights, hard_negatives, highlight, look_alikes, take_notes
from stages.explain.question import Part, ask_in_words, few_shot
from stages.methods import Method
from stages.settings import Explain


@dataclass(frozen=True)
class MarkedTextExplainer:
    """Asks what the marked tokens have in common, and, where there are counter-examples, what nothing in these has.

    A prompt that does not fit the model's context loses counter-examples, the least like first, then few-shot neurons,
    the last first, and then exemplars, the weakest first.
    """

    settings: Explain
    asker: Asker
    prompts: Sequence[Prompt]
    """Two: for units of which only marked texts are known, and for those of which more is; see `take_notes`."""
    find_others: Callable[[Evidence, Highlights], list[str]] | None = None
    """Finds the counter-examples. A unit that is low on no text of its evidence is asked about without any."""

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask_in_words`."""
        evidence = evidence.around(self.settings.context)
        highlights = highlight(evidence)
        notes = take_notes(evidence, highlights)
        prompt = self.prompts[1 if notes.kinds else 0]
        parts = (few_shot(prompt), Part("exemplar", notes.shown, "texts", least=1))
        others = (
            (Part("counter-example", self.find_others(evidence, highlights), "others"),) if self.find_others else ()
        )
        return await ask_in_words(
            self.asker, self.settings, prompt, (*others, *parts), seed, notes.kinds, **notes.values
        )


def _contrastive(settings: Explain, asker: Asker, prompts: Sequence[Prompt]) -> MarkedTextExplainer:
    others = hard_negatives if settings.negatives == "hard" else look_alikes
    return MarkedTextExplainer(settings, asker, prompts, others)


MAX_ACTIVATION = Method(
    "a language model is shown the strongest texts with the tokens marked that the unit responds to",
    MarkedTextExplainer,
    prompts=("explain/max_activation.v1", "explain/max_activation.v2"),
)
CONTRASTIVE = Method(
    "as max_activation, with texts beside them that look alike and that the unit does not respond to",
    _contrastive,
    prompts=("explain/contrastive.v1", "explain/contrastive.v2"),
)
