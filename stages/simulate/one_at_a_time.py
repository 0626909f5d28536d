"""Simulates a unit by asking for one token at a time: the text up to the token, and how strongly the unit responds to it.

This costs one request a token, each with the few-shot examples and the text so far: several hundred times the tokens of the
text. On an endpoint it needs only the log-probabilities of a reply's first token, and a server that keeps what it has read
of a prompt reads anew little more than the token itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.llm.engine import Message, Need, NumberPrompt, NumberScores
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.few_shot import few_shot_neurons, one_line, opening, show_token
from stages.methods import Method
from stages.simulate.simulator import Simulation


class OneAtATimeSimulator:
    """The expected number that the model would reply with, for each token by itself."""

    def __init__(self, asker: Asker, prompt: Prompt) -> None:
        self.prompt_id, self.model = prompt.id, asker.engine.name
        self._asker, self._prompt = asker, prompt

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; a sequence with a token that could not be scored has an error."""
        beginnings = [tokens[: end + 1] for tokens in sequences for end in range(len(tokens))]
        asked = [number_prompt(self._prompt, explanation, tokens) for tokens in beginnings]
        scores = iter(await self._asker.score(asked))
        return [_simulation([next(scores) for _ in tokens]) for tokens in sequences]


def number_prompt(prompt: Prompt, explanation: str, tokens: Sequence[str]) -> NumberPrompt:
    """What is asked for the last of the tokens; what texts and their beginnings have in common comes first."""
    asked = _neuron(prompt, len(few_shot_neurons(prompt)) + 1, one_line(explanation), tokens)
    return NumberPrompt((*opening(prompt, _shots), Message("user", asked)), (), (0,))


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Of each neuron, the text up to its strongest token, and the whole of the short piece."""
    for number, neuron in enumerate(few_shot_neurons(prompt), 1):
        text, piece = neuron.records[:2]
        for record, last in ((text, int(np.argmax(text.activations))), (piece, len(piece.tokens) - 1)):
            asked = _neuron(prompt, number, neuron.explanation, record.tokens[: last + 1])
            yield asked, "\n" + str(record.activations[last])


def _neuron(prompt: Prompt, number: int, explanation: str, tokens: Sequence[str]) -> str:
    values = {"explanation": explanation, "text": show_token("".join(tokens)), "token": show_token(tokens[-1])}
    return prompt.part("neuron", number=number, **values)


def _simulation(scores: Sequence[NumberScores]) -> Simulation:
    """One sequence from the scores of its T tokens."""
    parts = [(s.probabilities, s.coverage) for s in scores if s.probabilities is not None and s.coverage is not None]
    if len(parts) < len(scores):
        errors = [score.error for score in scores if score.probabilities is None]
        found = Simulation.failed(f"{len(errors)} of {len(scores)} tokens were not scored: {errors[0]}")
    else:
        probabilities = np.concatenate([probability for probability, _ in parts])  # T times (1, 11) -> (T, 11)
        found = Simulation.from_probabilities(probabilities, np.concatenate([coverage for _, coverage in parts]))
    prompt, written = sum(score.prompt_tokens for score in scores), sum(score.completion_tokens for score in scores)
    return replace(found, prompt_tokens=prompt, completion_tokens=written)


METHOD = Method(
    "a language model's probabilities of the numbers at the last token of each beginning of a text: a request for each token",
    lambda _, asker, prompts: OneAtATimeSimulator(asker, prompts[0]),
    prompts=("simulate/one_at_a_time.v1",),
    need=Need("reply_numbers", "log-probabilities of the tokens of a reply (top_logprobs)"),
)
