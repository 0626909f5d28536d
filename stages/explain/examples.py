"""Questions that show a language model worked examples before the unit, and are answered by a sentence or by JSON."""

import json
import tomllib
from collections.abc import Callable
from functools import cache
from typing import Any

from pipeline.llm.engine import Message
from pipeline.prompts import FOLDER, render
from stages.explain.asking import Part, Question
from stages.explain.replies import SCHEMA, read_explanation

MAX_TOKENS = 100
STOP = ("\nTexts of neuron", "\nTokens of neuron")
"""Where a model that only completes texts goes on with a neuron of its own making."""


def question(
    prompt_id: str,
    as_json: bool,
    parts: tuple[Part, ...],
    write: Callable[..., tuple[Message, ...]],
    notes: tuple[str, ...] = (),
) -> Question:
    """What `ask` needs; `as_json` where the engine sees to schemas, `notes` as in `conversation`."""
    asked = instruction(prompt_id, as_json, notes)
    schema = SCHEMA if as_json else None
    return Question(prompt_id, parts, write, lambda reply: read_explanation(reply, asked), MAX_TOKENS, STOP, schema)


def few_shot(prompt_id: str) -> Part:
    """The few-shot neurons of a prompt; the last one is left out first."""
    return Part("few-shot example", invented_neurons(prompt_id))


def conversation(
    prompt_id: str, shots: int, as_json: bool, notes: tuple[str, ...] = (), **shown: object
) -> tuple[Message, ...]:
    """The first `shots` few-shot neurons with their explanations, then the unit without one.

    Everything before the unit is the same for all units with the same notes, so that servers and engines read it once.

    Args:
        prompt_id: a prompt with the parts `few_shot` (names the file of the neurons), `system` and `neuron`.
        as_json: whether the reply is to be a JSON object that follows replies.SCHEMA, or words alone.
        notes: what is shown beside the texts, of few-shot neurons too: kinds of `Notes`, for prompts that know them.
        shown: values of the part `neuron`; a few-shot neuron brings its own by the same names.
    """
    return (*_few_shot(prompt_id, shots, as_json, notes), _neuron(prompt_id, shots + 1, as_json, notes, shown))


@cache
def instruction(prompt_id: str, as_json: bool, notes: tuple[str, ...] = ()) -> str:
    """The system text."""
    return render(prompt_id, part="system", as_json=as_json, notes=notes).strip("\n")


@cache
def invented_neurons(prompt_id: str) -> list[dict[str, Any]]:
    """The invented neurons of the file that the prompt names, so that the prompt's digest covers them."""
    name = render(prompt_id, part="few_shot").strip()
    neurons: list[dict[str, Any]] = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["neuron"]
    return neurons


@cache
def _few_shot(prompt_id: str, shots: int, as_json: bool, notes: tuple[str, ...]) -> tuple[Message, ...]:
    messages = [Message("system", instruction(prompt_id, as_json, notes))]
    for number, neuron in enumerate(invented_neurons(prompt_id)[:shots], 1):
        explanation = neuron["explanation"] + "."
        answer = json.dumps({"explanation": explanation}, ensure_ascii=False) if as_json else explanation
        messages += [_neuron(prompt_id, number, as_json, notes, neuron), Message("assistant", answer)]
    return tuple(messages)


def _neuron(prompt_id: str, number: int, as_json: bool, notes: tuple[str, ...], shown: dict[str, Any]) -> Message:
    values = {name: value for name, value in shown.items() if name != "explanation"}
    text = render(prompt_id, part="neuron", number=number, as_json=as_json, notes=notes, **values)
    return Message("user", text.strip("\n"))
