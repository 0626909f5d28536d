"""Several sequences in one request: what came back right is kept, what was wrong is asked again.

A request that fails as a whole is cut in halves, so that a text which a server refuses, or one that is too long, takes no
other text's result with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.execution.concurrency import bounded_gather
from pipeline.llm.engine import Completion, Engine, EngineError, Message, Refused, Request
from stages.simulate.base import Simulation

TRIES = 3
"""Requests for a sequence at most, while its reply cannot be used."""
RETRY_TEMPERATURE = 0.7
"""Of every request but the first, which is greedy: the same reply would be wrong again."""

Tokens = Sequence[str]
Ask = Callable[[Sequence[Tokens], int], Request]
"""The request for some sequences, and the number of requests before it."""
Read = Callable[[Completion, Sequence[Tokens]], list[Simulation]]
"""What a reply says of each sequence; an `error` names the fault where it cannot be used."""


def one_line(text: str) -> str:
    """An explanation as prompts show it: no line of its own can look like a part of the prompt."""
    return " ".join(text.split())


def packs(count: int, pack: int) -> list[list[int]]:
    """The numbers from 0 to `count`, `pack` at a time."""
    return [list(range(start, min(start + pack, count))) for start in range(0, count, pack)]


def halves(numbers: list[int]) -> list[list[int]]:
    """Two lists of about one length."""
    middle = len(numbers) // 2
    return [numbers[:middle], numbers[middle:]]


def written_request(
    messages: tuple[Message, ...],
    max_tokens: int,
    attempt: int,
    logprobs: int = 0,
    schema: Mapping[str, Any] | None = None,
) -> Request:
    """A request for written numbers: greedy at first, then drawn with another seed each time."""
    return Request(
        messages=messages,
        max_tokens=max_tokens,
        temperature=RETRY_TEMPERATURE if attempt else 0.0,
        stop=("\nNeuron",),
        seed=attempt,
        schema=schema,
        logprobs=logprobs,
        attempt=attempt,
    )


class PackedSimulator:
    """A simulator by which the model writes the values of several sequences in one reply."""

    name: str
    prompt_id: str

    def __init__(self, engine: Engine, pack: int) -> None:
        """`pack`: sequences in a request at most."""
        self.model = engine.name
        self._engine, self._pack = engine, pack

    async def simulate(self, explanation: str, sequences: Sequence[Tokens]) -> list[Simulation]:
        """See `Simulator`; a sequence without a usable reply has an error that names the fault."""
        return await simulate_packed(self._engine, partial(self.request, explanation), self.read, sequences, self._pack)

    def request(self, explanation: str, texts: Sequence[Tokens], attempt: int) -> Request:
        """What is asked for some sequences; `attempt`: requests for them before this one."""
        raise NotImplementedError

    def read(self, completion: Completion, texts: Sequence[Tokens]) -> list[Simulation]:
        """What a reply says of each of them; an `error` names the fault where it cannot be used."""
        raise NotImplementedError


async def simulate_packed(
    engine: Engine, ask: Ask, read: Read, sequences: Sequence[Tokens], pack: int
) -> list[Simulation]:
    """One Simulation for each sequence, in order, from requests of `pack` sequences at most, side by side.

    A sequence without a usable reply has the last fault as its error, never a made-up value. The tokens of a request are
    carried by the first sequence in it; those of repeated requests add up.
    """
    writing = _Writing(engine, ask, read, sequences)
    groups = packs(len(sequences), pack)
    await bounded_gather(writing.request, groups, len(groups))
    return writing.simulations()


class _Writing:
    """One call of a simulator: results so far, and what they took."""

    def __init__(self, engine: Engine, ask: Ask, read: Read, sequences: Sequence[Tokens]) -> None:
        self._engine, self._ask, self._read, self._sequences = engine, ask, read, sequences
        self._results: dict[int, Simulation] = {}
        self._spent = [(0, 0)] * len(sequences)

    async def request(self, numbers: list[int], attempt: int = 0) -> None:
        """Ask for the sequences with these numbers until each has a result or TRIES is reached."""
        while numbers and attempt < TRIES:
            asked = [self._sequences[number] for number in numbers]
            try:
                completion = (await self._engine.complete(self._ask(asked, attempt)))[0]
            except Refused as error:
                self._spend(numbers[0], error.prompt_tokens, error.completion_tokens)
                self._results |= dict.fromkeys(numbers, Simulation(None, None, str(error)))
                attempt += 1
                continue
            except EngineError as error:
                await self._failed(numbers, attempt, error)
                return
            self._spend(numbers[0], completion.prompt_tokens, completion.completion_tokens)
            self._results |= zip(numbers, self._read(completion, asked), strict=True)
            numbers = [number for number in numbers if self._results[number].expected is None]
            attempt += 1
        for number in numbers:
            fault = self._results[number].error
            self._results[number] = Simulation(None, None, f"{fault}, in the last of {attempt} replies")

    def _spend(self, number: int, prompt_tokens: int, completion_tokens: int) -> None:
        prompt, written = self._spent[number]
        self._spent[number] = (prompt + prompt_tokens, written + completion_tokens)

    async def _failed(self, numbers: list[int], attempt: int, error: EngineError) -> None:
        if len(numbers) == 1:
            self._results[numbers[0]] = Simulation(None, None, str(error))
        else:
            await bounded_gather(lambda half: self.request(half, attempt), halves(numbers), 2)

    def simulations(self) -> list[Simulation]:
        return [
            replace(self._results[number], prompt_tokens=prompt, completion_tokens=written)
            for number, (prompt, written) in enumerate(self._spent)
        ]
