"""Explains a unit by showing a language model tokens with their activations (Bills et al. 2023)."""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from pipeline.llm.engine import Completion, Engine, Message
from pipeline.prompts import render
from stages.evidence import Evidence, Exemplar
from stages.explain.asking import Part, Question, ask
from stages.explain.base import Candidate, ExplanationError
from stages.explain.replies import tidy, usable
from stages.token_lines import FewShotNeuron, few_shot_neurons, normalised, token_lines

PROMPT_ID = "explain/token_activation.v1"
EXEMPLARS = 5
"""Exemplars shown, the strongest of the top band."""
SPARSE = 0.2
"""Records with a smaller share of non-zero values are shown again without the zeros."""
MAX_TOKENS = 60

_LEAD = re.compile(r"^(?:.{0,60}?\bthe main thing (?:this|the) neuron does is(?: to)? find)\b[:\s]*", re.IGNORECASE)


class TokenActivationExplainer:
    """Asks for the rest of the sentence "the main thing this neuron does is find".

    A prompt that does not fit the model's context loses few-shot neurons, the last first, and then exemplars, the
    weakest first. Positions left out of the record (NaN) keep their line and show 0.
    """

    name = "token_activation"

    def __init__(self, engine: Engine, candidates: int) -> None:
        self._engine = engine
        self._candidates = candidates

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt; see `Explainer` and `ask`.

        Raises:
            ExplanationError: no activation above zero, besides what `ask` raises.
        """
        exemplars = evidence.band("top")[:EXEMPLARS]
        if not any(np.nan_to_num(exemplar.activations).max(initial=0) > 0 for exemplar in exemplars):
            raise ExplanationError("no exemplar of the explain split has an activation above zero")
        parts = (Part("few-shot example", few_shot_neurons(PROMPT_ID)), Part("exemplar", exemplars, least=1))
        question = Question(PROMPT_ID, parts, prompt, clean, MAX_TOKENS, ("\n",))
        return await ask(self._engine, question, self._candidates, seed)


def prompt(neurons: Sequence[FewShotNeuron], exemplars: Sequence[Exemplar]) -> tuple[Message, ...]:
    """The conversation: the few-shot neurons with their explanations, then the unit without one."""
    number = len(neurons) + 1
    values = normalised([exemplar.activations for exemplar in exemplars])
    question = _neuron(number, [(exemplar.tokens, row) for exemplar, row in zip(exemplars, values, strict=True)])
    return (*_few_shot(tuple(neurons)), Message("user", question))


@cache
def _few_shot(neurons: tuple[FewShotNeuron, ...]) -> tuple[Message, ...]:
    messages = [Message("system", _instruction())]
    for number, neuron in enumerate(neurons, 1):
        records = [(record.tokens, record.activations) for record in neuron.records]
        messages += [Message("user", _neuron(number, records)), Message("assistant", neuron.explanation + ".")]
    return tuple(messages)


@cache
def _instruction() -> str:
    return render(PROMPT_ID, part="system").strip("\n")


def _neuron(number: int, records: Sequence[tuple[Sequence[str], Sequence[int]]]) -> str:
    values = [value for _, row in records for value in row]
    sparse = sum(value > 0 for value in values) < SPARSE * len(values)
    nonzero = [
        token_lines([token for token, value in zip(tokens, row, strict=True) if value], filter(None, row))
        for tokens, row in records
    ]
    shown = [token_lines(tokens, row) for tokens, row in records]
    text = render(PROMPT_ID, part="neuron", number=number, records=shown, nonzero=nonzero if sparse else [])
    return text.strip("\n")


def clean(reply: Completion) -> str:
    """The explanation in a reply; empty where there is none.

    Taken off: a repeated lead, quotation marks around the whole, and, where the token limit cut the reply, what follows
    its last full sentence. A text with a tab is more of the prompt's lines and no explanation; see also `usable`.
    """
    text = " ".join(reply.text.split())
    return (
        "" if "\t" in reply.text.strip() else usable(tidy(_LEAD.sub("", text), finished=reply.finished), _instruction())
    )
