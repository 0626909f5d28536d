"""Simulates a unit by having the model list the tokens that are not 0, in JSON that is checked against a schema.

Few tokens of a text activate a unit, so the reply is short; a token that is not listed is 0, as the prompt says. A text that
is missing, occurs twice, or lists a token or a value that cannot be is asked again.
"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.llm.engine import Completion, Message, Request
from pipeline.prompts import Prompt
from stages.asking import json_objects
from stages.few_shot import FewShotRecord, few_shot_neurons, one_line, opening, show_token
from stages.methods import Method
from stages.simulate.packing import PackedSimulator, Tokens
from stages.simulate.simulator import SCALE, Simulation

ENTRY_TOKENS = 14
"""Tokens that an entry of a list takes at most."""
FENCE_TOKENS = 16
"""Room for the marks of a code block around the reply, which some servers count though they take them off."""
TEXT_TOKENS = 40
"""Tokens that a text takes in the reply beside its entries, at most."""


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_ENTRY = _object(token={"type": "integer"}, value={"type": "integer", "enum": list(range(1, 11))})
SCHEMA = _object(texts=_list(_object(text={"type": "integer"}, active=_list(_ENTRY))))
"""Of a reply; it keeps to what strict servers allow, so counts and ranges of tokens are checked when it is read."""


class JsonSimulator(PackedSimulator):
    """The values that the model lists; coverage is 1, as the method has no probabilities."""

    def request(self, explanation: str, texts: Sequence[Tokens], attempt: int = 0) -> Request:
        """At first, room for half of the tokens in the reply, then for all."""
        asked = _neuron(self.prompt, len(few_shot_neurons(self.prompt)) + 1, one_line(explanation), texts)
        entries = sum(len(tokens) if attempt else math.ceil(len(tokens) / 2) for tokens in texts)
        most = FENCE_TOKENS + TEXT_TOKENS * len(texts) + ENTRY_TOKENS * entries
        messages = (*opening(self.prompt, _shots), Message("user", asked))
        return self.written_request(messages, most, attempt, schema=SCHEMA)

    def read(self, completion: Completion, texts: Sequence[Tokens]) -> list[Simulation]:
        """An error for a sequence that the reply does not have, not once, or not rightly."""
        document = _document(completion.text)
        if document is None:
            fault = "the reply holds no JSON object with texts"
            if not completion.finished:
                fault = f"the reply was cut after {completion.completion_tokens} tokens"
            return [Simulation.failed(fault) for _ in texts]
        found: dict[object, list[dict[str, Any]]] = {}
        for entry in document:
            found.setdefault(entry["text"], []).append(entry)
        if strange := [number for number in found if not _whole(number, 1, len(texts))]:
            fault = f"the reply names text {strange[0]!r} where texts 1 to {len(texts)} were asked"
            return [Simulation.failed(fault) for _ in texts]
        return [_simulation(number, found.get(number, []), len(tokens)) for number, tokens in enumerate(texts, 1)]


def _simulation(number: int, entries: list[dict[str, Any]], length: int) -> Simulation:
    if len(entries) != 1:
        return Simulation.failed(f"text {number} occurs {len(entries)} times in the reply, not once")
    values = np.zeros(length, dtype=np.float32)
    seen: set[int] = set()
    for pair in entries[0]["active"]:
        token, value = pair if isinstance(pair, list) and len(pair) == 2 else _named(pair)
        if not _whole(token, 1, length) or token in seen:
            return Simulation.failed(f"text {number} lists token {token!r}, not one of 1 to {length} once")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= SCALE:
            return Simulation.failed(f"text {number} has the value {value!r} at token {token}, not 0 to 10")
        seen.add(token)
        values[token - 1] = value
    return Simulation.certain(values)


def _named(pair: object) -> tuple[Any, Any]:
    return (pair.get("token"), pair.get("value")) if isinstance(pair, dict) else (pair, None)


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _document(text: str) -> list[dict[str, Any]] | None:
    """The texts of the last JSON object in a reply that has the schema's outer form, whatever stands around it."""
    documents = [value["texts"] for value in json_objects(text) if _has_form(value)]
    return documents[-1] if documents else None


def _has_form(value: dict[str, Any]) -> bool:
    texts = value.get("texts")
    return isinstance(texts, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("text"), int | str) and isinstance(entry.get("active"), list)
        for entry in texts
    )


def _shots(prompt: Prompt) -> Iterator[tuple[str, str]]:
    for number, neuron in enumerate(few_shot_neurons(prompt), 1):
        reply = {"texts": [{"text": i, "active": _active(record)} for i, record in enumerate(neuron.records, 1)]}
        asked = _neuron(prompt, number, neuron.explanation, [record.tokens for record in neuron.records])
        yield asked, "\n" + json.dumps(reply, separators=(",", ":"))


def _active(record: FewShotRecord) -> list[dict[str, int]]:
    return [{"token": place, "value": value} for place, value in enumerate(record.activations, 1) if value]


def _neuron(prompt: Prompt, number: int, explanation: str, texts: Sequence[Tokens]) -> str:
    lines = ["\n".join(f"{place}:{show_token(token)}" for place, token in enumerate(tokens, 1)) for tokens in texts]
    return prompt.part("neuron", number=number, explanation=explanation, texts=lines)


METHOD = Method(
    "a language model lists the tokens that are not 0, as JSON",
    lambda settings, asker, prompts: JsonSimulator(settings, asker, prompts[0]),
    prompts=("simulate/json.v1",),
)
