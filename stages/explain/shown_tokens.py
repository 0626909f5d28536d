"""Explains a unit by its tokens and their activations (Bills et al. 2023): in texts, or its strongest ones by themselves."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.llm.engine import Completion, Message
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.evidence import Evidence, Exemplar
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.explanation_reply import Said, usable
from stages.explain.question import Part, Question, ask, ask_in_words, few_shot
from stages.few_shot import FewShotNeuron, few_shot_neurons, normalised, opening, show_token, token_lines
from stages.methods import Method
from stages.settings import Explain

EXEMPLARS = 5
"""Exemplars shown, the strongest of the top band."""
SPARSE = 0.2
"""Records with a smaller share of non-zero values are shown again without the zeros."""
MAX_TOKENS = 60
"""Of a reply, unless explain.max_tokens says otherwise."""

_LEAD = re.compile(r"^(?:.{0,60}?\bthe main thing (?:this|the) neuron does is(?: to)? find)\b[:\s]*", re.IGNORECASE)


@dataclass(frozen=True)
class TokenActivationExplainer:
    """Asks for the rest of the sentence "the main thing this neuron does is find".

    A prompt that does not fit the model's context loses few-shot neurons, the last first, and then exemplars, the
    weakest first. Positions left out of the record (NaN) keep their line and show 0.
    """

    settings: Explain
    asker: Asker
    prompt: Prompt

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`.

        Raises:
            ExplanationError: no activation above zero, besides what `ask` raises.
        """
        exemplars = evidence.around(self.settings.context).band("top")[:EXEMPLARS]
        if not any(np.nan_to_num(exemplar.activations).max(initial=0) > 0 for exemplar in exemplars):
            raise ExplanationError("no exemplar of the explain split has an activation above zero")
        parts = (
            Part("few-shot example", few_shot_neurons(self.prompt), "neurons"),
            Part("exemplar", exemplars, "exemplars", least=1),
        )
        most, temperature = self.settings.max_tokens or MAX_TOKENS, self.settings.temperature
        question = Question(self.prompt.id, parts, self.conversation, self.read, most, temperature, stop=("\n",))
        return await ask(self.asker, question, self.settings.candidates, seed)

    def conversation(self, neurons: Sequence[FewShotNeuron], exemplars: Sequence[Exemplar]) -> tuple[Message, ...]:
        """The few-shot neurons with their explanations, then the unit without one."""
        values = normalised([exemplar.activations for exemplar in exemplars])
        records = [(exemplar.tokens, row) for exemplar, row in zip(exemplars, values, strict=True)]
        question = _neuron(self.prompt, len(neurons) + 1, records)
        return (*opening(self.prompt, _shots, len(neurons)), Message("user", question))

    def read(self, reply: Completion) -> Said:
        """The explanation in a reply, without a repeated lead. A text with a tab is more of the prompt's lines, and no explanation."""
        text = _LEAD.sub("", " ".join(reply.text.split()))
        return Said("") if "\t" in reply.text.strip() else usable(text, reply.finished, self.prompt.part("system"))


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for number, neuron in enumerate(few_shot_neurons(prompt), 1):
        records = [(record.tokens, record.activations) for record in neuron.records]
        yield _neuron(prompt, number, records), neuron.explanation + "."


def _neuron(prompt: Prompt, number: int, records: Sequence[tuple[Sequence[str], Sequence[int]]]) -> str:
    values = [value for _, row in records for value in row]
    sparse = sum(value > 0 for value in values) < SPARSE * len(values)
    pairs = [[(token, value) for token, value in zip(*record, strict=True) if value] for record in records]
    nonzero = [token_lines(*zip(*kept, strict=True)) if kept else "" for kept in pairs]
    shown = [token_lines(tokens, row) for tokens, row in records]
    return prompt.part("neuron", number=number, records=shown, nonzero=nonzero if sparse else [])


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


TOKEN_ACTIVATION = Method(
    "a language model is shown the strongest texts token by token, each with its activation (Bills et al. 2023)",
    lambda settings, asker, prompts: TokenActivationExplainer(settings, asker, prompts[0]),
    prompts=("explain/token_activation.v1",),
)
TOKEN_SPACE = Method(
    "a language model is shown the tokens with the highest mean activation (Bills et al. 2023)",
    lambda settings, asker, prompts: TokenSpaceExplainer(settings, asker, prompts[0]),
    prompts=("explain/token_space.v1",),
)
