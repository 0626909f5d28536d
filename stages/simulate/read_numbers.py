"""Simulates a unit by reading the probabilities of the numbers at all tokens in one pass (Bills et al. 2023).

A line of the prompt is a token, the place of its number, and a line break: two tokens in most tokenizers. The number stands
directly behind a letter, and behind a tab where it could be taken for a part of the token ("19" and "7", "$" and "5").
A value that is not known is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.llm.engine import Message, Need, NumberPrompt, NumberScores
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.few_shot import FewShotNeuron, few_shot_neurons, one_line, opening, show_token
from stages.methods import Method
from stages.settings import Simulate
from stages.simulate.packing import Results, halves, packs
from stages.simulate.simulation import Simulation

PACKED_AT_MOST = 4
"""Sequences in a prompt that are worth it: with SmolLM2 the coverage is halved in the second to fourth and a tenth after."""


class AllAtOnceSimulator:
    """The expected number at each token, where no value of the text is known.

    Departures from Bills et al.: positions are token indices, so that no text is searched; a "10" of two tokens counts
    exactly; the coverage is kept; and where a token's numbers have no probability at all, the sequence has no result
    instead of a 0.

    Several sequences may share a prompt, which saves reading the few-shot neurons again. The longer no number is seen, the
    less probability goes to numbers, so a few lines of a few-shot neuron with its values stand before each further
    sequence. What has no result in a prompt with others is tried again in a smaller one, down to single sequences.
    """

    def __init__(self, asker: Asker, prompt: Prompt, pack: int) -> None:
        """`pack`: sequences in a prompt at most; 1 for an engine that reads a shared beginning only once."""
        self.prompt_id, self.model = prompt.id, asker.engine.name
        self._asker, self._prompt, self._pack = asker, prompt, pack

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; a sequence that does not fit the model's context has an error."""
        results = Results(len(sequences))
        groups = packs(len(sequences), self._pack)
        while groups:
            texts = [[sequences[number] for number in group] for group in groups]
            scores = await self._asker.score([number_prompt(self._prompt, explanation, shown) for shown in texts])
            again: list[list[int]] = []
            for group, shown, score in zip(groups, texts, scores, strict=True):
                spent = (score.prompt_tokens, score.completion_tokens)
                failed = results.put(group, _simulations(score, shown), spent)
                if failed and len(group) > 1:  # nothing else can help a single sequence
                    again += [failed] if len(failed) < len(group) else halves(failed)
            groups = again
        return results.simulations()


def number_prompt(prompt: Prompt, explanation: str, sequences: Sequence[Sequence[str]]) -> NumberPrompt:
    """What is asked for some sequences: few-shot neurons, the explanation, and the sequences' lines with a slot in each."""
    neurons = few_shot_neurons(prompt)
    own = len(neurons) + 1
    pieces, slots = list[str](), list[int]()
    for number, tokens in enumerate(sequences):
        if number:
            turn = number % len(neurons)
            pieces.append(prompt.render(part="heading", number=turn + 1) + _lines(neurons[turn], 1))
        pieces.append(("" if number else "\n") + prompt.render(part="heading", number=own))
        for token in tokens:
            slots.append(len(pieces) + 1)
            pieces += [_shown(token), "\n"]
    asked = prompt.part("neuron", number=own, explanation=one_line(explanation))
    messages = (*opening(prompt, _shots), Message("user", asked))
    return NumberPrompt(messages, tuple(pieces), tuple(slots))


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for number, neuron in enumerate(few_shot_neurons(prompt), 1):
        lines = "\n" + prompt.render(part="heading", number=number) + _lines(neuron, 0)
        yield prompt.part("neuron", number=number, explanation=neuron.explanation), lines.removesuffix("\n")


def _lines(neuron: FewShotNeuron, place: int) -> str:
    record = neuron.records[place]
    values = ["" if i < record.revealed else str(value) for i, value in enumerate(record.activations)]
    return "".join(f"{_shown(token)}{value}\n" for token, value in zip(record.tokens, values, strict=True))


def _shown(token: str) -> str:
    return show_token(token) + ("" if token[-1:].isalpha() else "\t")


def _simulations(scores: NumberScores, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
    """One for each sequence of a prompt, whose slots are the tokens of all of them in order."""
    if scores.probabilities is None or scores.coverage is None:
        return [Simulation.failed(scores.error) for _ in sequences]
    ends = np.cumsum([len(tokens) for tokens in sequences])[:-1]
    parts = zip(np.split(scores.probabilities, ends), np.split(scores.coverage, ends), strict=True)
    return [Simulation.from_probabilities(probabilities, coverage) for probabilities, coverage in parts]


class OneAtATimeSimulator:
    """The expected number that the model would reply with, for each token by itself."""

    def __init__(self, asker: Asker, prompt: Prompt) -> None:
        self.prompt_id, self.model = prompt.id, asker.engine.name
        self._asker, self._prompt = asker, prompt

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; a sequence with a token that could not be scored has an error."""
        beginnings = [tokens[: end + 1] for tokens in sequences for end in range(len(tokens))]
        asked = [last_number_prompt(self._prompt, explanation, tokens) for tokens in beginnings]
        scores = iter(await self._asker.score(asked))
        return [_from_tokens([next(scores) for _ in tokens]) for tokens in sequences]


def last_number_prompt(prompt: Prompt, explanation: str, tokens: Sequence[str]) -> NumberPrompt:
    """What is asked for the last of the tokens; what texts and their beginnings have in common comes first."""
    asked = _token_neuron(prompt, len(few_shot_neurons(prompt)) + 1, one_line(explanation), tokens)
    return NumberPrompt((*opening(prompt, _shots_of_tokens), Message("user", asked)), (), (0,))


def _shots_of_tokens(prompt: Prompt) -> Iterator[tuple[str, str]]:
    """Of each neuron, the text up to its strongest token, and the whole of the short piece."""
    for number, neuron in enumerate(few_shot_neurons(prompt), 1):
        text, piece = neuron.records[:2]
        for record, last in ((text, int(np.argmax(text.activations))), (piece, len(piece.tokens) - 1)):
            asked = _token_neuron(prompt, number, neuron.explanation, record.tokens[: last + 1])
            yield asked, "\n" + str(record.activations[last])


def _token_neuron(prompt: Prompt, number: int, explanation: str, tokens: Sequence[str]) -> str:
    values = {"explanation": explanation, "text": show_token("".join(tokens)), "token": show_token(tokens[-1])}
    return prompt.part("neuron", number=number, **values)


def _from_tokens(scores: Sequence[NumberScores]) -> Simulation:
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


def _build(settings: Simulate, asker: Asker, prompts: Sequence[Prompt]) -> AllAtOnceSimulator:
    behind_endpoint = settings.engine is not None and settings.engine.base_url
    return AllAtOnceSimulator(asker, prompts[0], min(settings.pack, PACKED_AT_MOST) if behind_endpoint else 1)


ALL_AT_ONCE = Method(
    "a language model's probabilities of the numbers at all tokens of a text, read in one pass (Bills et al. 2023)",
    _build,
    prompts=("simulate/all_at_once.v2",),
    need=Need("prompt_numbers", "probabilities of the tokens of a prompt (prompt_logprobs or echo, and a tokenizer)"),
)
ONE_AT_A_TIME = Method(
    "a language model's probabilities of the numbers at the last token of each beginning of a text: a request for each token",
    lambda _, asker, prompts: OneAtATimeSimulator(asker, prompts[0]),
    prompts=("simulate/one_at_a_time.v1",),
    need=Need("reply_numbers", "log-probabilities of the tokens of a reply (top_logprobs)"),
)
