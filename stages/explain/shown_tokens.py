"""Explains a unit by its tokens and their activations (Bills et al. 2023): in texts, or its strongest ones by themselves."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

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
TOKENS = 50
"""Tokens shown at most."""
STEP = 10
"""Tokens left out at a time of a prompt that does not fit."""
_LEAD = re.compile(r"^(?:.{0,60}?\bthe main thing (?:this|the) neuron does is(?: to)? find)\b[:\s]*", re.IGNORECASE)


async def by_activations(
    settings: Explain, asker: Asker, prompt: Prompt, evidence: Evidence, seed: int
) -> list[Candidate]:
    """Asks for the rest of the sentence "the main thing this neuron does is find".

    A prompt that does not fit the model's context loses few-shot neurons, the last first, and then exemplars, the
    weakest first. Positions left out of the record (NaN) keep their line and show 0.

    Raises:
        ExplanationError: no activation above zero, besides what `ask` raises.
    """
    exemplars = evidence.around(settings.context).band("top")[:EXEMPLARS]
    if not any(np.nan_to_num(exemplar.activations).max(initial=0) > 0 for exemplar in exemplars):
        raise ExplanationError("no exemplar of the explain split has an activation above zero")

    def write(neurons: Sequence[FewShotNeuron], exemplars: Sequence[Exemplar]) -> tuple[Message, ...]:
        values = normalised([exemplar.activations for exemplar in exemplars])
        records = [(exemplar.tokens, row) for exemplar, row in zip(exemplars, values, strict=True)]
        question = _neuron(prompt, len(neurons) + 1, records)
        return (*opening(prompt, _shots, len(neurons)), Message("user", question))

    few = Part("few-shot example", few_shot_neurons(prompt), "neurons")
    parts = (few, Part("exemplar", exemplars, "exemplars", least=1))
    most, read = settings.max_tokens or MAX_TOKENS, partial(read_rest, prompt)
    question = Question(prompt.id, parts, write, read, most, settings.temperature, stop=("\n",))
    return await ask(asker, question, settings.candidates, seed)


def read_rest(prompt: Prompt, reply: Completion) -> Said:
    """The explanation in a reply, without a repeated lead. A text with a tab is more of the prompt's lines, and no explanation."""
    text = _LEAD.sub("", " ".join(reply.text.split()))
    return Said("") if "\t" in reply.text.strip() else usable(text, reply.finished, prompt.part("system"))


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


async def by_token_means(
    settings: Explain, asker: Asker, prompt: Prompt, evidence: Evidence, seed: int
) -> list[Candidate]:
    """Asks what the tokens with the highest mean activation have in common, whatever stands around them.

    Departure from Bills et al.: the means are shown, as numbers from 0 to 10. A prompt that does not fit the model's
    context loses few-shot neurons, the last first, and then the tokens with the lowest means.

    Raises:
        ExplanationError: no token with a mean above zero, besides what `ask_in_words` raises.
    """
    tokens = Part("token", shown_tokens(evidence), "tokens", least=1, step=STEP)
    return await ask_in_words(asker, settings, prompt, (few_shot(prompt), tokens), seed)


def shown_tokens(evidence: Evidence) -> list[tuple[str, int]]:
    """The strongest tokens as shown, each with its mean as a number from 0 to 10, by falling mean."""
    strong = [entry for entry in evidence.top_tokens[:TOKENS] if entry.mean_activation > 0]
    if not strong:
        raise ExplanationError("no token of the explain split has a mean activation above zero")
    (values,) = normalised([np.array([entry.mean_activation for entry in strong], dtype=np.float32)])
    return [(show_token(entry.token), value) for entry, value in zip(strong, values, strict=True)]


TOKEN_ACTIVATION = Method(
    "a language model is shown the strongest texts token by token, each with its activation (Bills et al. 2023)",
    lambda settings, asker, prompts: partial(by_activations, settings, asker, prompts[0]),
    prompts=("explain/token_activation.v1",),
)
TOKEN_SPACE = Method(
    "a language model is shown the tokens with the highest mean activation (Bills et al. 2023)",
    lambda settings, asker, prompts: partial(by_token_means, settings, asker, prompts[0]),
    prompts=("explain/token_space.v1",),
)
