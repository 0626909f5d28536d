"""Several sequences in one request: what came back right is kept, what was wrong is asked again.

A request that fails as a whole is cut in halves, so that a text which a server refuses, or one that is too long, takes no
other text's result with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pipeline.execution.concurrency import bounded_gather
from pipeline.llm.engine import Completion, Message, Request
from pipeline.prompts import Prompt
from stages.asking import ATTEMPTS, Asker, Reply, Use, greedy_request
from stages.few_shot import few_shot_neurons, one_line, opening
from stages.settings import Simulate
from stages.simulate.simulation import Simulation

Tokens = Sequence[str]


def packs(count: int, pack: int) -> list[list[int]]:
    """The numbers from 0 to `count`, `pack` at a time."""
    return [list(range(start, min(start + pack, count))) for start in range(0, count, pack)]


def halves(numbers: list[int]) -> list[list[int]]:
    """Two lists of about one length."""
    middle = len(numbers) // 2
    return [numbers[:middle], numbers[middle:]]


class Results:
    """What is known of some sequences so far, and what it took."""

    def __init__(self, count: int) -> None:
        self.found: dict[int, Simulation] = {}
        self._spent = [(0, 0)] * count

    def put(self, numbers: Sequence[int], found: Sequence[Simulation], spent: tuple[int, int] = (0, 0)) -> list[int]:
        """Take in what a request gave for some sequences; returns those that still have no values.

        Args:
            spent: tokens read and written, carried by the first of them; those of repeated requests add up.
        """
        read, written = self._spent[numbers[0]]
        self._spent[numbers[0]] = (read + spent[0], written + spent[1])
        self.found |= zip(numbers, found, strict=True)
        return [number for number in numbers if self.found[number].expected is None]

    def simulations(self) -> list[Simulation]:
        """One for each sequence, in order."""
        return [
            replace(self.found[number], prompt_tokens=read, completion_tokens=written)
            for number, (read, written) in enumerate(self._spent)
        ]


class PackedSimulator(ABC):
    """A simulator by which the model writes the values of several sequences in one reply."""

    def __init__(self, settings: Simulate, asker: Asker, prompt: Prompt) -> None:
        self.settings, self.prompt = settings, prompt
        self.prompt_id, self.model = prompt.id, asker.engine.name
        self._asker = asker

    @abstractmethod
    def request(self, explanation: str, texts: Sequence[Tokens], attempt: int = 0) -> Request:
        """What is asked for some sequences; `attempt`: requests for them before this one."""

    @abstractmethod
    def read(self, completion: Completion, texts: Sequence[Tokens]) -> list[Simulation]:
        """What a reply says of each of them; an `error` names the fault where it cannot be used."""

    async def simulate(self, explanation: str, sequences: Sequence[Tokens]) -> list[Simulation]:
        """See `Simulator`. Requests hold `settings.pack` sequences at most and go out side by side.

        A sequence without a usable reply has the last fault as its error, never a made-up value.
        """
        results = Results(len(sequences))
        groups = packs(len(sequences), self.settings.pack)
        await bounded_gather(lambda group: self._ask(explanation, sequences, group, results), groups, len(groups))
        return results.simulations()

    async def _ask(
        self, explanation: str, sequences: Sequence[Tokens], numbers: list[int], results: Results, tried: int = 0
    ) -> None:
        """Ask for the sequences with these numbers until each has a result; `tried`: requests for them before."""

        def texts() -> list[Tokens]:
            return [sequences[number] for number in numbers]

        def request(_: int) -> Request:
            return self.request(explanation, texts(), tried)

        def take(reply: Reply) -> Use:
            nonlocal numbers, tried
            refused = [Simulation.failed(reply.refusal)] * len(numbers)
            found = self.read(reply.completions[0], texts()) if reply.completions else refused
            asked, tried = len(numbers), tried + 1
            numbers = results.put(numbers, found, (reply.prompt_tokens, reply.completion_tokens))
            return Use.ALL if not numbers else Use.SOME if len(numbers) < asked else Use.NOTHING

        error = await self._asker.ask(request, take, ATTEMPTS - tried)
        if error is None and numbers:
            faults = [f"{results.found[number].error}, in the last of {tried} replies" for number in numbers]
            results.put(numbers, list(map(Simulation.failed, faults)))
        elif error is not None and len(numbers) == 1:
            results.put(numbers, [Simulation.failed(str(error))])
        elif error is not None:
            await bounded_gather(
                lambda half: self._ask(explanation, sequences, half, results, tried), halves(numbers), 2
            )

    @staticmethod
    @abstractmethod
    def show(texts: Sequence[Tokens]) -> list[str]:
        """Each text as the prompt shows it."""

    @staticmethod
    @abstractmethod
    def answer(values: Sequence[Sequence[int]]) -> str:
        """The right reply, from the values of each text."""

    @classmethod
    def shots(cls, prompt: Prompt) -> Iterator[tuple[str, str]]:
        """The few-shot neurons: what is asked, and the right reply."""
        for number, neuron in enumerate(few_shot_neurons(prompt), 1):
            texts = cls.show([record.tokens for record in neuron.records])
            asked = prompt.part("neuron", number=number, explanation=neuron.explanation, texts=texts)
            yield asked, cls.answer([record.activations for record in neuron.records])

    def written_request(
        self, explanation: str, texts: Sequence[Tokens], max_tokens: int, attempt: int, **more: Any
    ) -> Request:
        """A request for written numbers."""
        number, shown = len(few_shot_neurons(self.prompt)) + 1, self.show(texts)
        asked = self.prompt.part("neuron", number=number, explanation=one_line(explanation), texts=shown)
        messages = (*opening(self.prompt, self.shots), Message("user", asked))
        return greedy_request(messages, self.settings.max_tokens or max_tokens, "\nNeuron", attempt, **more)
