"""Simulates a unit by asking for one token at a time: the text up to the token, and how strongly the unit responds to it.

This costs one request a token, each with the few-shot examples and the text so far: several hundred times the tokens of the
text. On an endpoint it needs only the log-probabilities of a reply's first token, and a server that keeps what it has read
of a prompt reads anew little more than the token itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from pipeline.llm.engine import Engine, Message, NumberPrompt, NumberScores
from pipeline.prompts import render
from stages.simulate.base import Simulation
from stages.simulate.expected import expected_values
from stages.simulate.packing import one_line
from stages.token_lines import FewShotNeuron, FewShotRecord, few_shot_neurons, show_token

PROMPT_ID = "simulate/one_at_a_time.v1"


class OneAtATimeSimulator:
    """The expected number that the model would reply with, for each token by itself."""

    name = "one_at_a_time"
    prompt_id = PROMPT_ID

    def __init__(self, engine: Engine) -> None:
        self.model = engine.name
        self._engine = engine

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; a sequence with a token that could not be scored has an error."""
        passages = [passage(explanation, tokens[: end + 1]) for tokens in sequences for end in range(len(tokens))]
        scores = iter(await self._engine.score(passages))
        return [_simulation([next(scores) for _ in tokens]) for tokens in sequences]


def passage(explanation: str, tokens: Sequence[str]) -> NumberPrompt:
    """The prompt for the last of the tokens; what texts and their beginnings have in common comes first."""
    neurons = few_shot_neurons(PROMPT_ID)
    messages = (*_few_shot(neurons), _neuron(len(neurons) + 1, one_line(explanation), tokens))
    return NumberPrompt(messages, (), (0,))


@cache
def _few_shot(neurons: tuple[FewShotNeuron, ...]) -> tuple[Message, ...]:
    """Of each neuron, the text up to its strongest token, and the whole of the short piece."""
    messages = [Message("system", render(PROMPT_ID, part="system").strip("\n"))]
    for number, neuron in enumerate(neurons, 1):
        text, piece = neuron.records[:2]
        strongest = int(np.argmax(text.activations))
        messages += _example(number, neuron, text, strongest) + _example(number, neuron, piece, len(piece.tokens) - 1)
    return tuple(messages)


def _example(number: int, neuron: FewShotNeuron, record: FewShotRecord, last: int) -> list[Message]:
    asked = _neuron(number, neuron.explanation, record.tokens[: last + 1])
    return [asked, Message("assistant", "\n" + str(record.activations[last]))]


def _neuron(number: int, explanation: str, tokens: Sequence[str]) -> Message:
    values = {"explanation": explanation, "text": show_token("".join(tokens)), "token": show_token(tokens[-1])}
    return Message("user", render(PROMPT_ID, part="neuron", number=number, **values).removesuffix("\n"))


def _simulation(scores: Sequence[NumberScores]) -> Simulation:
    """One sequence from the scores of its T tokens."""
    prompt, written = sum(score.prompt_tokens for score in scores), sum(score.completion_tokens for score in scores)
    parts = [(s.probabilities, s.coverage) for s in scores if s.probabilities is not None and s.coverage is not None]
    if len(parts) < len(scores):
        errors = [score.error for score in scores if score.probabilities is None]
        message = f"{len(errors)} of {len(scores)} tokens were not scored: {errors[0]}"
        return Simulation(None, None, message, prompt, written)
    probabilities = np.concatenate([probability for probability, _ in parts])  # T times (1, 11) -> (T, 11)
    found = expected_values(probabilities, np.concatenate([coverage for _, coverage in parts]))
    return replace(found, prompt_tokens=prompt, completion_tokens=written)
