"""Simulates a unit by reading the probabilities of the numbers at all tokens in one pass (Bills et al. 2023)."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from pipeline.llm.engine import NUMBERS, Engine, Message, NumberScores, Passage
from pipeline.llm.token_lines import FewShotNeuron, FewShotRecord, few_shot_neurons, show_token, token_lines
from pipeline.prompts import render
from stages.simulate.base import Simulation

PROMPT_ID = "simulate/all_at_once.v1"
UNKNOWN = "unknown"


class AllAtOnceSimulator:
    """The expected number at each token, where every earlier token's value is shown as unknown.

    Departures from Bills et al.: positions are token indices, so that no text is searched; a "10" of two tokens counts
    exactly; the coverage is kept; and where a token's numbers have no probability at all, the sequence has no result
    instead of a 0.
    """

    name = "all_at_once"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; a sequence that does not fit the model's context has an error."""
        return self.simulate_pairs([(explanation, sequence) for sequence in sequences])

    def simulate_pairs(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[Simulation]:
        """One Simulation for each (explanation, tokens) pair, in order; pairs of one explanation are batched."""
        passages = [passage(explanation, tokens) for explanation, tokens in pairs]
        return [_simulation(scores) for scores in self._engine.score(passages)]


def passage(explanation: str, tokens: Sequence[str]) -> Passage:
    """The prompt for one sequence: few-shot neurons, the explanation, and the sequence's lines with a slot in each."""
    few_shot = _few_shot(few_shot_neurons(PROMPT_ID))
    number = sum(message.role == "user" for message in few_shot) + 1
    pieces = [render(PROMPT_ID, part="activations")]
    for token in tokens:
        pieces += [show_token(token) + "\t", UNKNOWN + "\n"]
    messages = (*few_shot, _neuron(number, " ".join(explanation.split())))
    return Passage(messages, tuple(pieces), tuple(range(2, len(pieces), 2)))


@cache
def _few_shot(neurons: tuple[FewShotNeuron, ...]) -> tuple[Message, ...]:
    messages = [Message("system", render(PROMPT_ID, part="system").strip("\n"))]
    for number, neuron in enumerate(neurons, 1):
        records = "<start>\n".join(_lines(record) + "<end>\n" for record in neuron.records)
        activations = render(PROMPT_ID, part="activations") + records.removesuffix("\n")
        messages += [_neuron(number, neuron.explanation), Message("assistant", activations)]
    return tuple(messages)


def _neuron(number: int, explanation: str) -> Message:
    return Message("user", render(PROMPT_ID, part="neuron", number=number, explanation=explanation).strip("\n"))


def _lines(record: FewShotRecord) -> str:
    hidden = [UNKNOWN] * record.revealed
    return token_lines(record.tokens, [*hidden, *record.activations[record.revealed :]])


def _simulation(scores: NumberScores) -> Simulation:
    if scores.probabilities is None or scores.coverage is None:
        return Simulation(None, None, scores.error)
    if missing := int((scores.coverage <= 0).sum()):
        return Simulation(None, None, f"no number found at {missing} of {len(scores.coverage)} tokens")
    expected = scores.probabilities @ np.array(NUMBERS, dtype=np.float32)  # (T, 11) -> (T,)
    return Simulation(expected.astype(np.float32), scores.coverage)
