"""Worked examples in prompts: what stands before a question, the same for every unit, so that servers read it once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from pipeline.llm.engine import Message
from pipeline.prompts import Prompt

Shots = Callable[..., Iterable[tuple[str, str]]]
"""Questions and the right answers to them, from a prompt and the values that its parts need."""


@cache
def opening(prompt: Prompt, shots: Shots, count: int | None = None, **values: object) -> tuple[Message, ...]:
    """The system text of a prompt and its worked examples.

    Args:
        shots: a function, so that what it gives is rendered once.
        count: examples shown; all of them unless given.
        values: what the part `system` and the examples are rendered with; hashable.
    """
    messages = [Message("system", prompt.part("system", **values))]
    for question, answer in list(shots(prompt, **values))[:count]:
        messages += [Message("user", question), Message("assistant", answer)]
    return tuple(messages)


def one_line(text: str) -> str:
    """An explanation as prompts show it: no line of its own can look like a part of the prompt."""
    return " ".join(text.split())


@dataclass(frozen=True)
class FewShotRecord:
    """One text of an invented neuron."""

    tokens: tuple[str, ...]
    activations: tuple[int, ...]
    revealed: int
    """Values before this index are shown as unknown to a simulator."""


@dataclass(frozen=True)
class FewShotNeuron:
    """An invented neuron with its explanation."""

    explanation: str
    records: tuple[FewShotRecord, ...]


@cache
def few_shot_neurons(prompt: Prompt) -> tuple[FewShotNeuron, ...]:
    """The invented neurons of a prompt that shows tokens with their activations."""
    return tuple(
        FewShotNeuron(neuron["explanation"], tuple(_record(**record) for record in neuron["record"]))
        for neuron in prompt.examples()["neuron"]
    )


def _record(lines: list[tuple[str, int]], revealed: int) -> FewShotRecord:
    return FewShotRecord(tuple(token for token, _ in lines), tuple(value for _, value in lines), revealed)
