"""Simulates a unit by having the model write a number for each token, in rows of eight.

A row of eight numbers takes about two tokens a number, where repeating each token beside its number would take four, and
eight is few enough to keep in step with the tokens. Each row has its own number, so that one left out or written twice is
noticed. The expected value comes from the alternatives at each number, where the engine gives any.
"""

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from pipeline.llm.engine import Completion, Message, Request
from pipeline.prompts import render
from stages.simulate.base import SCALE, Simulation
from stages.simulate.expected import expected_values
from stages.simulate.packing import PackedSimulator, Tokens, one_line, written_request
from stages.simulate.written import WrittenNumbers
from stages.token_lines import FewShotNeuron, few_shot_neurons, show_token

PROMPT_ID = "simulate/generated.v1"
ROW = 8
"""Tokens in a row."""
ALTERNATIVES = 20
"""Asked for at each token of a reply: the most that is common."""
_LINE = re.compile(r"^[ \t]*(\d{1,6})[ \t]*:(?P<numbers>[-+\d.,; \t]*)$", re.MULTILINE)
_ITEM = re.compile(r"[^\s,;]+")
Span = tuple[int, int]


class GeneratedSimulator(PackedSimulator):
    """The expected value of each number that the model writes, or that number where no alternatives are given.

    Coverage is the probability of all numbers among the alternatives, and 1 where there are none.
    """

    name = "generated"
    prompt_id = PROMPT_ID

    def request(self, explanation: str, texts: Sequence[Tokens], attempt: int) -> Request:
        return request(explanation, texts, attempt)

    def read(self, completion: Completion, texts: Sequence[Tokens]) -> list[Simulation]:
        return read_reply(completion, texts)


def request(explanation: str, texts: Sequence[Sequence[str]], attempt: int = 0) -> Request:
    """What is asked for some sequences; three tokens a number and six a row are more than any tokenizer needs."""
    neurons = few_shot_neurons(PROMPT_ID)
    messages = (*_few_shot(neurons), _neuron(len(neurons) + 1, one_line(explanation), texts))
    rows = [row for tokens in texts for row in _rows(tokens)]
    most = 20 + 6 * len(rows) + 3 * sum(map(len, rows))
    return written_request(messages, most, attempt, logprobs=ALTERNATIVES)


def read_reply(completion: Completion, texts: Sequence[Sequence[str]]) -> list[Simulation]:
    """The numbers that a reply has for each sequence; an error for one with a row missing, twice, or not right."""
    found: dict[int, list[Span]] = {}
    for line in _LINE.finditer(completion.text):
        found.setdefault(int(line[1]), []).append(line.span("numbers"))
    count = sum(len(_rows(tokens)) for tokens in texts)
    if strange := [number for number in found if not 1 <= number <= count]:
        fault = f"the reply has a row {strange[0]} where rows 1 to {count} were asked"
        return [Simulation(None, None, fault) for _ in texts]
    results, first = [], 1
    for tokens in texts:
        rows = _rows(tokens)
        results.append(_simulation(completion, [found.get(first + i, []) for i in range(len(rows))], rows, first))
        first += len(rows)
    return results


def _simulation(
    completion: Completion, found: Sequence[list[Span]], rows: Sequence[Sequence[str]], first: int
) -> Simulation:
    """One sequence, from where each of its rows stands in the reply."""
    places: list[Span] = []
    for number, (spans, row) in enumerate(zip(found, rows, strict=True), first):
        if len(spans) != 1:
            cut = "" if completion.finished else f", and the reply was cut after {completion.completion_tokens} tokens"
            return Simulation(None, None, f"row {number} occurs {len(spans)} times in the reply, not once{cut}")
        items = [item.span() for item in _ITEM.finditer(completion.text, *spans[0])]
        if len(items) != len(row):
            return Simulation(None, None, f"row {number} has {len(items)} numbers for {len(row)} tokens")
        places += items
    texts = [completion.text[start:end] for start, end in places]
    if wrong := [text for text in texts if not (text.isdecimal() and int(text) <= SCALE)]:
        return Simulation(None, None, f"{wrong[0]!r} stands for a number from 0 to 10")
    written = WrittenNumbers(completion)
    pairs = [written.probabilities(start, end) for start, end in places]
    probabilities = np.array([chances for chances, _ in pairs], dtype=np.float32).reshape(-1, 11)
    return expected_values(probabilities, np.array([mass for _, mass in pairs], dtype=np.float32))


def _rows(tokens: Sequence[str]) -> list[Sequence[str]]:
    return [tokens[start : start + ROW] for start in range(0, len(tokens), ROW)]


@cache
def _few_shot(neurons: tuple[FewShotNeuron, ...]) -> tuple[Message, ...]:
    messages = [Message("system", render(PROMPT_ID, part="system").strip("\n"))]
    for number, neuron in enumerate(neurons, 1):
        asked = _neuron(number, neuron.explanation, [record.tokens for record in neuron.records])
        values = [[str(value) for value in record.activations] for record in neuron.records]
        rows = [row for numbers in values for row in _rows(numbers)]
        reply = "".join(f"\n{place}: {' '.join(row)}" for place, row in enumerate(rows, 1))
        messages += [asked, Message("assistant", reply)]
    return tuple(messages)


def _neuron(number: int, explanation: str, texts: Sequence[Sequence[str]]) -> Message:
    shown, first = [], 1
    for tokens in texts:
        rows = [f"{place}:" + "\t".join(map(show_token, row)) for place, row in enumerate(_rows(tokens), first)]
        shown.append("\n".join(rows))
        first += len(rows)
    content = render(PROMPT_ID, part="neuron", number=number, explanation=explanation, texts=shown)
    return Message("user", content.removesuffix("\n"))
