"""Simulates a unit by reading the probabilities of the numbers at all tokens in one pass (Bills et al. 2023).

A line of the prompt is a token, the place of its number, and a line break: two tokens in most tokenizers. The number stands
directly behind a letter, and behind a tab where it could be taken for a part of the token ("19" and "7", "$" and "5").
A value that is not known is left out.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from pipeline.llm.engine import Engine, Message, NumberPrompt, NumberScores
from pipeline.prompts import render
from stages.simulate.base import Simulation
from stages.simulate.expected import expected_values
from stages.simulate.packing import halves, one_line, packs
from stages.token_lines import FewShotNeuron, few_shot_neurons, show_token

PROMPT_ID = "simulate/all_at_once.v2"
PACKED_AT_MOST = 4
"""Sequences in a passage that are worth it: with SmolLM2 the coverage is halved in the second to fourth and a tenth after."""


class AllAtOnceSimulator:
    """The expected number at each token, where no value of the text is known.

    Departures from Bills et al.: positions are token indices, so that no text is searched; a "10" of two tokens counts
    exactly; the coverage is kept; and where a token's numbers have no probability at all, the sequence has no result
    instead of a 0.

    Several sequences may share a passage, which saves reading the few-shot neurons again. The longer no number is seen, the
    less probability goes to numbers, so a few lines of a few-shot neuron with its values stand before each further
    sequence. What has no result in a passage with others is tried again in a smaller one, down to single sequences.
    """

    name = "all_at_once"
    prompt_id = PROMPT_ID

    def __init__(self, engine: Engine, pack: int) -> None:
        """`pack`: sequences in a passage at most; 1 for an engine that reads a shared beginning only once."""
        self.model = engine.name
        self._engine, self._pack = engine, pack

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; a sequence that does not fit the model's context has an error."""
        results: dict[int, Simulation] = {}
        spent = [(0, 0)] * len(sequences)
        groups = packs(len(sequences), self._pack)
        while groups:
            texts = [[sequences[number] for number in group] for group in groups]
            scores = await self._engine.score([passage(explanation, shown) for shown in texts])
            again: list[list[int]] = []
            for group, shown, score in zip(groups, texts, scores, strict=True):
                prompt, written = spent[group[0]]
                spent[group[0]] = (prompt + score.prompt_tokens, written + score.completion_tokens)
                results |= zip(group, _simulations(score, shown), strict=True)
                again += _smaller(group, [number for number in group if results[number].expected is None])
            groups = again
        return [
            replace(results[number], prompt_tokens=prompt, completion_tokens=written)
            for number, (prompt, written) in enumerate(spent)
        ]


def passage(explanation: str, sequences: Sequence[Sequence[str]]) -> NumberPrompt:
    """The prompt for some sequences: few-shot neurons, the explanation, and the sequences' lines with a slot in each."""
    neurons = few_shot_neurons(PROMPT_ID)
    own = len(neurons) + 1
    pieces, slots = ["\n"], []
    for number, tokens in enumerate(sequences):
        if number:
            pieces.append(_reminder(neurons, number))
        pieces.append(_heading(own))
        for token in tokens:
            slots.append(len(pieces) + 1)
            pieces += [_shown(token), "\n"]
    pieces[:2] = ["".join(pieces[:2])]
    messages = (*_few_shot(neurons), _neuron(own, one_line(explanation)))
    return NumberPrompt(messages, tuple(pieces), tuple(slot - 1 for slot in slots))


def _smaller(group: list[int], failed: list[int]) -> list[list[int]]:
    """The failed sequences of a passage in smaller groups; none for a single sequence, which nothing else can help."""
    if len(group) == 1 or not failed:
        return []
    return [failed] if len(failed) < len(group) else halves(failed)


@cache
def _few_shot(neurons: tuple[FewShotNeuron, ...]) -> tuple[Message, ...]:
    messages = [Message("system", render(PROMPT_ID, part="system").strip("\n"))]
    for number, neuron in enumerate(neurons, 1):
        lines = "\n" + _heading(number) + _lines(neuron, 0)
        messages += [_neuron(number, neuron.explanation), Message("assistant", lines.removesuffix("\n"))]
    return tuple(messages)


def _reminder(neurons: Sequence[FewShotNeuron], turn: int) -> str:
    """The short record of a few-shot neuron, by turns."""
    place = turn % len(neurons)
    return _heading(place + 1) + _lines(neurons[place], 1)


def _lines(neuron: FewShotNeuron, place: int) -> str:
    record = neuron.records[place]
    values = ["" if i < record.revealed else str(value) for i, value in enumerate(record.activations)]
    return "".join(f"{_shown(token)}{value}\n" for token, value in zip(record.tokens, values, strict=True))


def _shown(token: str) -> str:
    return show_token(token) + ("" if token[-1:].isalpha() else "\t")


def _heading(number: int) -> str:
    return render(PROMPT_ID, part="heading", number=number)


def _neuron(number: int, explanation: str) -> Message:
    return Message("user", render(PROMPT_ID, part="neuron", number=number, explanation=explanation).strip("\n"))


def _simulations(scores: NumberScores, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
    """One for each sequence of a passage, whose slots are the tokens of all of them in order."""
    if scores.probabilities is None or scores.coverage is None:
        return [Simulation(None, None, scores.error) for _ in sequences]
    ends = np.cumsum([len(tokens) for tokens in sequences])[:-1]
    parts = zip(np.split(scores.probabilities, ends), np.split(scores.coverage, ends), strict=True)
    return [expected_values(probabilities, coverage) for probabilities, coverage in parts]
