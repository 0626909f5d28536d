"""Tokens and activations as the lines of a prompt, and the few-shot neurons that prompts show."""

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.evidence import Activations
from pipeline.prompts import FOLDER, render

_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_MARK = re.compile(
    r"<(?=[^<>\s]*>)|\[(?=/?[A-Z_]+\])|<(?=[|｜])"
)  # begins <end>, </s>, <|im_end|>, [INST] and the like


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
def few_shot_neurons(prompt_id: str) -> tuple[FewShotNeuron, ...]:
    """The neurons of the file that the prompt names as its part `few_shot`, so that the prompt's digest covers them."""
    name = render(prompt_id, part="few_shot").strip()
    values = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return tuple(
        FewShotNeuron(neuron["explanation"], tuple(_record(record) for record in neuron["record"]))
        for neuron in values["neuron"]
    )


def _record(values: dict[str, list[tuple[str, int]] | int]) -> FewShotRecord:
    lines, revealed = values["lines"], values["revealed"]
    assert isinstance(lines, list)
    assert isinstance(revealed, int)
    return FewShotRecord(tuple(token for token, _ in lines), tuple(value for _, value in lines), revealed)


def show_token(token: str) -> str:
    """A token's text on one line; different tokens are shown differently.

    A backslash is doubled; tab, line feed and return are `\\t`, `\\n` and `\\r`; the empty token is `\\empty`. Every
    other character that does not print, the replacement character (a lone byte of a character), and a `<` or `[`
    that begins something like `<end>`, `<|im_end|>` or `[INST]` is written as its code: `\\x3c`, `\\ufffd`,
    `\\U000e0001`. So no token reads as a mark of the prompt or as a special token of a model.
    """
    if not token:
        return r"\empty"
    marks = {match.start() for match in _MARK.finditer(token)}
    return "".join(_coded(character) if place in marks else _shown(character) for place, character in enumerate(token))


def _shown(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() and character != "\ufffd" else _coded(character)


def _coded(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def token_lines(tokens: Sequence[str], values: Iterable[int | str]) -> str:
    """One line for each token: the token as shown, a tab, its value."""
    return "".join(f"{show_token(token)}\t{value}\n" for token, value in zip(tokens, values, strict=True))


def normalised(activations: Sequence[Activations]) -> list[list[int]]:
    """Integers 0 to 10 in place of activations: min(10, floor(10 relu(x) / max)), the maximum over all that is given.

    All zeros where the maximum is not positive; NaN (a position left out of the record) is 0. Source: Bills et al. 2023.
    """
    positive = [np.maximum(np.nan_to_num(values.astype(np.float64), nan=0.0), 0.0) for values in activations]
    highest = max((float(values.max(initial=0.0)) for values in positive), default=0.0)
    if highest <= 0:
        return [[0] * len(values) for values in positive]
    return [np.minimum(10, np.floor(10 * (values / highest))).astype(int).tolist() for values in positive]
