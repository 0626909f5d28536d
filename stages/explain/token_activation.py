"""Explains a unit by showing a language model tokens with their activations (Bills et al. 2023)."""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from pipeline.evidence import Evidence, Exemplar
from pipeline.llm.engine import Completion, Engine, EngineError, Message
from pipeline.llm.token_lines import FewShotNeuron, few_shot_neurons, normalised, token_lines
from pipeline.prompts import render
from stages.explain.base import Candidate, ExplanationError

PROMPT_ID = "explain/token_activation.v1"
EXEMPLARS = 5
"""Exemplars shown, the strongest of the top band."""
SPARSE = 0.2
"""Records with a smaller share of non-zero values are shown again without the zeros."""
TEMPERATURE = 1.0
MAX_TOKENS = 60
ATTEMPTS = 3
"""Requests at most, each with another seed, until there is a usable reply for every candidate."""

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

    def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Different replies to one prompt, in the order in which they were drawn; see `Explainer`.

        The token counts of the candidates add up to what the unit took: the first one carries every prompt and every
        reply that was not usable.

        Raises:
            ExplanationError: no activation above zero, no prompt that fits, or no usable reply in ATTEMPTS requests.
        """
        messages = self._fitting(evidence.band("top")[:EXEMPLARS])
        usable: list[tuple[str, Completion]] = []
        prompt_tokens = wasted = 0
        for attempt in range(ATTEMPTS):
            replies = self._ask(messages, self._candidates - len(usable), _attempt_seed(seed, attempt))
            prompt_tokens += replies[0].prompt_tokens
            cleaned = [(clean(reply), reply) for reply in replies]
            usable += [(text, reply) for text, reply in cleaned if text]
            wasted += sum(reply.completion_tokens for text, reply in cleaned if not text)
            if len(usable) == self._candidates:
                break
        if not usable:
            raise ExplanationError(
                f"no usable reply in {ATTEMPTS} requests; the last one was {replies[-1].text[:80]!r}"
            )
        return self._counted(usable, prompt_tokens, wasted)

    def _ask(self, messages: Sequence[Message], n: int, seed: int) -> list[Completion]:
        try:
            return self._engine.complete(messages, n, TEMPERATURE, MAX_TOKENS, ("\n",), seed)
        except EngineError as error:
            raise ExplanationError(str(error)) from error

    def _fitting(self, exemplars: list[Exemplar]) -> list[Message]:
        """The longest prompt by the rule that fits the engine's context together with the reply."""
        if not any(np.nan_to_num(exemplar.activations).max(initial=0) > 0 for exemplar in exemplars):
            raise ExplanationError("no exemplar of the explain split has an activation above zero")
        neurons = few_shot_neurons(PROMPT_ID)
        shapes = [(shots, len(exemplars)) for shots in range(len(neurons), -1, -1)]
        shapes += [(0, shown) for shown in range(len(exemplars) - 1, 0, -1)]
        for shots, shown in shapes:
            messages = prompt(neurons[:shots], exemplars[:shown])
            if self._engine.count_tokens(messages) + MAX_TOKENS <= self._engine.context:
                return messages
        raise ExplanationError(f"one exemplar alone does not fit the model's context of {self._engine.context} tokens")

    def _counted(self, usable: list[tuple[str, Completion]], prompt_tokens: int, wasted: int) -> list[Candidate]:
        """A candidate for each different text; a repeated text's tokens go to its first."""
        tokens: dict[str, int] = {}
        for text, reply in usable:
            tokens[text] = tokens.get(text, 0) + reply.completion_tokens
        first = next(iter(tokens))
        return [
            Candidate(
                text, PROMPT_ID, self._engine.name,
                prompt_tokens if text == first else 0, spent + (wasted if text == first else 0),
            )
            for text, spent in tokens.items()
        ]  # fmt: skip


def prompt(neurons: Sequence[FewShotNeuron], exemplars: Sequence[Exemplar]) -> list[Message]:
    """The conversation: the few-shot neurons with their explanations, then the unit without one."""
    number = len(neurons) + 1
    values = normalised([exemplar.activations for exemplar in exemplars])
    question = _neuron(number, [(exemplar.tokens, row) for exemplar, row in zip(exemplars, values, strict=True)])
    return [*_few_shot(tuple(neurons)), Message("user", question)]


@cache
def _few_shot(neurons: tuple[FewShotNeuron, ...]) -> tuple[Message, ...]:
    messages = [Message("system", render(PROMPT_ID, part="system").strip("\n"))]
    for number, neuron in enumerate(neurons, 1):
        records = [(record.tokens, record.activations) for record in neuron.records]
        messages += [Message("user", _neuron(number, records)), Message("assistant", neuron.explanation + ".")]
    return tuple(messages)


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
    its last full sentence. A text without three letters, or with a tab or a mark of the prompt, is no explanation.
    """
    if "\t" in reply.text.strip() or "<start>" in reply.text or "<end>" in reply.text:
        return ""
    text = _LEAD.sub("", " ".join(reply.text.split()))
    if not reply.finished and ". " in text:
        text = text[: text.rindex(". ") + 1]
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1]
    return text.strip() if sum(map(str.isalpha, text)) >= 3 else ""


def _attempt_seed(seed: int, attempt: int) -> int:
    return int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
