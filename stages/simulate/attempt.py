"""Try a simulator on an explanation and some text, without a run."""

import asyncio
import json
import re
from collections.abc import Sequence
from itertools import count, islice
from typing import Any, TextIO

import numpy as np

from pipeline.config import LanguageModel
from pipeline.config.section import choice
from pipeline.errors import UserError, nearest
from pipeline.llm.load import load_engine_model
from pipeline.terminal_text import safe_lines
from stages.asking import Asker
from stages.settings import Simulate
from stages.simulate import BASELINES, SIMULATORS
from stages.simulate.simulation import SCALE, Simulation, Simulator

BATCH = 64
"""Lines simulated at a time."""


def simulate_lines(simulator: str, model: str, explanation: str, lines: TextIO, out: TextIO) -> None:
    """Read JSON lines, each a list of token strings; write JSON lines, each the list of expected activations.

    Raises:
        UserError: a line is not a list of strings, or a sequence could not be simulated.
    """
    loaded = open_attempt(simulator, model)
    sequences = (_tokens(line, number) for number, line in enumerate(lines, start=1) if line.strip())
    numbers = count(1)
    while batch := list(islice(sequences, BATCH)):
        for result, number in zip(asyncio.run(loaded.simulate(explanation, batch)), numbers, strict=False):
            out.write(json.dumps([round(value, 4) for value in _values(result, number)]) + "\n")
        out.flush()


def show_text(simulator: str, model: str, explanation: str, text: str, *, color: bool) -> str:
    """The text with its expected activations: green backgrounds, or numbers in brackets without colour.

    Raises:
        UserError: the text could not be simulated.
    """
    tokens = re.findall(r"\s*(?:\w+|[^\w\s])|\s+", text)
    expected = _values(asyncio.run(open_attempt(simulator, model).simulate(explanation, [tokens]))[0], 1)
    shown = [safe_lines(token) for token in tokens]
    if color:
        return "".join(_colored(token, value) for token, value in zip(shown, expected, strict=True))
    rounded = np.rint(expected).astype(int)
    return "".join(f"{token}[{value}]" if value else token for token, value in zip(shown, rounded, strict=True))


def open_attempt(name: str, model: str) -> Simulator:
    """A simulator by name; `model` is `none` for one that works without a language model.

    Raises:
        UserError: no such simulator or model.
    """
    known = SIMULATORS | BASELINES
    if name not in known:
        raise UserError(f"--simulator {name!r}; {nearest(name, list(known))}")
    method = choice(known, name)
    loaded: Any = None
    if model != "none" and method.model != "none":
        loaded = load_engine_model(LanguageModel(model=model))
    if method.model == "asked":
        if loaded is None:
            raise UserError(f"--simulator {name} needs a language model; name it with --model")
        from pipeline.llm.in_process import InProcessEngine

        loaded = Asker(InProcessEngine(loaded))
    simulator: Simulator = method.build(Simulate(), loaded, method.load_prompts(""))
    return simulator


def _tokens(line: str, number: int) -> list[str]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise UserError(f"line {number} is not JSON ({error}); write one list of token strings a line") from None
    if not isinstance(value, list) or not all(isinstance(token, str) for token in value):
        raise UserError(f"line {number} is not a list of strings: {line.strip()[:80]}")
    return value


def _values(result: Simulation, number: int) -> Sequence[float]:
    if result.expected is None:
        raise UserError(f"sequence {number} could not be simulated: {result.error}")
    return list(result.expected.tolist())


def _colored(token: str, value: float) -> str:
    strength = int(200 * value / SCALE)
    return f"\x1b[48;2;{220 - strength};{235};{220 - strength}m\x1b[30m{token}\x1b[0m" if strength > 5 else token
