"""Simulates a unit by having the model write a number for each token, in rows of eight.

A row of eight numbers takes about two tokens a number, where repeating each token beside its number would take four, and
eight is few enough to keep in step with the tokens. Each row has its own number, so that one left out or written twice is
noticed. The expected value comes from the alternatives at each number, where the engine gives any.
"""

import json
import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, count
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.llm.engine import NUMBERS, Completion, Request
from stages.asking import json_objects
from stages.few_shot import show_token
from stages.methods import Method
from stages.simulate.packing import PackedSimulator, Tokens
from stages.simulate.simulation import SCALE, Simulation

ROW = 8
"""Tokens in a row."""
ALTERNATIVES = 20
"""Asked for at each token of a reply: the most that is common."""
_LINE = re.compile(r"^[ \t]*(\d{1,6})[ \t]*:(?P<numbers>[-+\d.,; \t]*)$", re.MULTILINE)
_ITEM = re.compile(r"[^\s,;]+")
_NUMBERS = {str(number): number for number in NUMBERS}
Span = tuple[int, int]
Chances = npt.NDArray[np.float64]


class GeneratedSimulator(PackedSimulator):
    """The expected value of each number that the model writes, or that number where no alternatives are given.

    Coverage is the probability of all numbers among the alternatives, and 1 where there are none.
    """

    @staticmethod
    def show(texts: Sequence[Tokens]) -> list[str]:
        """Rows of tokens, numbered through all texts."""
        place = count(1)
        return ["\n".join(f"{next(place)}:" + "\t".join(map(show_token, row)) for row in _rows(t)) for t in texts]

    @staticmethod
    def answer(values: Sequence[Sequence[int]]) -> str:
        """The same rows, of numbers."""
        rows = [row for numbers in values for row in _rows(list(map(str, numbers)))]
        return "".join(f"\n{place}: {' '.join(row)}" for place, row in enumerate(rows, 1))

    def request(self, explanation: str, texts: Sequence[Tokens], attempt: int = 0) -> Request:
        """Three tokens a number and six a row are more than any tokenizer needs."""
        rows = [row for tokens in texts for row in _rows(tokens)]
        most = 20 + 6 * len(rows) + 3 * sum(map(len, rows))
        return self.written_request(explanation, texts, most, attempt, logprobs=ALTERNATIVES)

    def read(self, completion: Completion, texts: Sequence[Tokens]) -> list[Simulation]:
        """An error for a sequence with a row missing, twice, or not right."""
        found = defaultdict[int, list[Span]](list)
        for line in _LINE.finditer(completion.text):
            found[int(line[1])].append(line.span("numbers"))
        rows_asked = sum(len(_rows(tokens)) for tokens in texts)
        if strange := [number for number in found if not 1 <= number <= rows_asked]:
            fault = f"the reply has a row {strange[0]} where rows 1 to {rows_asked} were asked"
            return [Simulation.failed(fault) for _ in texts]
        numbers = count(1)
        shown = [[(number, row) for row, number in zip(_rows(tokens), numbers, strict=False)] for tokens in texts]
        return [_from_rows(completion, found, rows) for rows in shown]


def _from_rows(
    completion: Completion, found: Mapping[int, list[Span]], rows: Sequence[tuple[int, Sequence[str]]]
) -> Simulation:
    """One sequence, from its numbered rows and where each row stands in the reply."""
    places: list[Span] = []
    for number, row in rows:
        if len(found[number]) != 1:
            cut = "" if completion.finished else f", and the reply was cut after {completion.completion_tokens} tokens"
            return Simulation.failed(f"row {number} occurs {len(found[number])} times in the reply, not once{cut}")
        items = [item.span() for item in _ITEM.finditer(completion.text, *found[number][0])]
        if len(items) != len(row):
            return Simulation.failed(f"row {number} has {len(items)} numbers for {len(row)} tokens")
        places += items
    texts = [completion.text[start:end] for start, end in places]
    if wrong := [text for text in texts if not (text.isdecimal() and int(text) <= SCALE)]:
        return Simulation.failed(f"{wrong[0]!r} stands for a number from 0 to 10")
    written = WrittenNumbers(completion)
    pairs = [written.probabilities(start, end) for start, end in places]
    probabilities = np.array([chances for chances, _ in pairs], dtype=np.float32).reshape(-1, len(NUMBERS))
    return Simulation.from_probabilities(probabilities, np.array([mass for _, mass in pairs], dtype=np.float32))


def _rows(tokens: Sequence[str]) -> list[Sequence[str]]:
    return [tokens[start : start + ROW] for start in range(0, len(tokens), ROW)]


class WrittenNumbers:
    """The numbers of one reply, found by their places in its text."""

    def __init__(self, completion: Completion) -> None:
        self._text, self._tokens = completion.text, completion.tokens
        self._starts = [0, *accumulate(len(token.text) for token in self._tokens)]
        """Where each token begins in the text, and where the last one ends."""
        if "".join(token.text for token in self._tokens) != self._text:
            self._tokens = ()

    def probabilities(self, start: int, end: int) -> tuple[Chances, float]:
        """The number at text[start:end]: (11,) normalised probabilities of the numbers, and their sum before that.

        The alternatives to its first token are those numbers that are one token; white space before them is that of the
        token. Where "10" is written in two tokens, the "1" is divided by the chance of a "0" behind it, which is known
        if a "1" was written; otherwise all of it counts as 1. Without alternatives, or where the first token holds more
        than the number, the written number has all probability and the sum is 1.
        """
        place = bisect_right(self._starts, start) - 1
        chances = self._at(place, start, end)
        if chances is None or not (mass := float(chances.sum())) > 0:
            return np.eye(len(NUMBERS))[int(self._text[start:end])], 1.0
        return chances / mass, min(mass, 1.0)

    def _at(self, place: int, start: int, end: int) -> Chances | None:
        if place >= len(self._tokens) or not (token := self._tokens[place]).alternatives:
            return None
        before = self._text[self._starts[place] : start]
        shown = self._text[start : self._starts[place + 1]]
        if before.strip() or not self._text[start:end].startswith(shown.rstrip()) or not shown.strip():
            return None
        chances = np.zeros(len(NUMBERS))
        for text, log_probability in token.alternatives:
            number = _NUMBERS.get(text.strip())
            if number is not None and text.startswith(before):
                chances[number] += math.exp(log_probability)
        if shown == "1":
            following = self._tokens[place + 1].alternatives if place + 1 < len(self._tokens) else ()
            zero = sum(math.exp(log_probability) for text, log_probability in following if text == "0")
            ten = chances[1] * min(zero, 1.0)
            chances[[1, 10]] += [-ten, ten]
        return chances


ENTRY_TOKENS = 14
"""Tokens that an entry of a list takes at most."""
FENCE_TOKENS = 16
"""Room for the marks of a code block around the reply, which some servers count though they take them off."""
TEXT_TOKENS = 40
"""Tokens that a text takes in the reply beside its entries, at most."""


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_ENTRY = _object(token={"type": "integer"}, value={"type": "integer", "enum": list(range(1, 11))})
_TEXT = _object(text={"type": "integer"}, active={"type": "array", "items": _ENTRY})
SCHEMA = _object(texts={"type": "array", "items": _TEXT})
"""Of a reply; it keeps to what strict servers allow, so counts and ranges of tokens are checked when it is read."""


class JsonSimulator(PackedSimulator):
    """The values that the model lists; coverage is 1, as the method has no probabilities."""

    @staticmethod
    def show(texts: Sequence[Tokens]) -> list[str]:
        """A token a line, numbered in each text."""
        return ["\n".join(f"{place}:{show_token(token)}" for place, token in enumerate(t, 1)) for t in texts]

    @staticmethod
    def answer(values: Sequence[Sequence[int]]) -> str:
        """The tokens with a value above 0."""
        active = [[{"token": i, "value": value} for i, value in enumerate(row, 1) if value] for row in values]
        reply = {"texts": [{"text": number, "active": row} for number, row in enumerate(active, 1)]}
        return "\n" + json.dumps(reply, separators=(",", ":"))

    def request(self, explanation: str, texts: Sequence[Tokens], attempt: int = 0) -> Request:
        """At first, room for half of the tokens in the reply, then for all."""
        entries = sum(len(tokens) if attempt else math.ceil(len(tokens) / 2) for tokens in texts)
        most = FENCE_TOKENS + TEXT_TOKENS * len(texts) + ENTRY_TOKENS * entries
        return self.written_request(explanation, texts, most, attempt, schema=SCHEMA)

    def read(self, completion: Completion, texts: Sequence[Tokens]) -> list[Simulation]:
        """An error for a sequence that the reply does not have, not once, or not rightly."""
        document = _document(completion.text)
        if document is None:
            fault = "the reply holds no JSON object with texts"
            if not completion.finished:
                fault = f"the reply was cut after {completion.completion_tokens} tokens"
            return [Simulation.failed(fault) for _ in texts]
        found = defaultdict[object, list[dict[str, Any]]](list)
        for entry in document:
            found[entry["text"]].append(entry)
        if strange := [number for number in found if not _whole(number, 1, len(texts))]:
            fault = f"the reply names text {strange[0]!r} where texts 1 to {len(texts)} were asked"
            return [Simulation.failed(fault) for _ in texts]
        return [_from_entries(number, found[number], len(tokens)) for number, tokens in enumerate(texts, 1)]


def _from_entries(number: int, entries: list[dict[str, Any]], length: int) -> Simulation:
    if len(entries) != 1:
        return Simulation.failed(f"text {number} occurs {len(entries)} times in the reply, not once")
    values = np.zeros(length, dtype=np.float32)
    seen: set[int] = set()
    for pair in entries[0]["active"]:
        if isinstance(pair, list) and len(pair) == 2:
            token, value = pair
        else:
            token, value = (pair.get("token"), pair.get("value")) if isinstance(pair, dict) else (pair, None)
        if not _whole(token, 1, length) or token in seen:
            return Simulation.failed(f"text {number} lists token {token!r}, not one of 1 to {length} once")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SCALE:
            return Simulation.failed(f"text {number} has the value {value!r} at token {token}, not 0 to 10")
        seen.add(token)
        values[token - 1] = value
    return Simulation.certain(values)


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _document(text: str) -> list[dict[str, Any]] | None:
    """The texts of the last JSON object in a reply that has the schema's outer form, whatever stands around it."""

    def has_form(entry: Any) -> bool:
        form = isinstance(entry, dict) and isinstance(entry.get("text"), int | str)
        return form and isinstance(entry.get("active"), list)

    lists = [texts for value in json_objects(text) if isinstance(texts := value.get("texts"), list)]
    return next((texts for texts in reversed(lists) if all(map(has_form, texts))), None)


GENERATED = Method(
    "a language model writes a number for each token",
    lambda settings, asker, prompts: GeneratedSimulator(settings, asker, prompts[0]),
    prompts=("simulate/generated.v1",),
)
JSON = Method(
    "a language model lists the tokens that are not 0, as JSON",
    lambda settings, asker, prompts: JsonSimulator(settings, asker, prompts[0]),
    prompts=("simulate/json.v1",),
)
