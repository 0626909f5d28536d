"""Worked examples in prompts: what stands before a question, the same for every unit, so that servers read it once."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, groupby

import numpy as np

from pipeline.llm.engine import Message
from pipeline.prompts import Prompt
from stages.evidence import Activations

OPEN, CLOSE = "«", "»"
"""Stand around marked tokens of a text; a model's tokenizer mostly has one token for each."""

EMPTY = r"\empty"
_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_MARK = re.compile(r"<(?=[^<>\s]*>)|\[(?=/?[A-Z_]+\])|<(?=[|｜])")
"""Begins <end>, </s>, <|im_end|>, [INST] and the like."""


@lru_cache(maxsize=65_536)
def show_token(token: str) -> str:
    """A token's text on one line; different tokens are shown differently.

    A backslash is doubled; tab, line feed and return are `\\t`, `\\n` and `\\r`; the empty token is `\\empty`. Every
    other character that does not print, the replacement character (a lone byte of a character), and a `<` or `[`
    that begins something like `<end>`, `<|im_end|>` or `[INST]` is written as its code: `\\x3c`, `\\ufffd`,
    `\\U000e0001`. So no token reads as a mark of the prompt or as a special token of a model.
    """
    if not token:
        return EMPTY
    marks = {match.start() for match in _MARK.finditer(token)}
    return "".join(_coded(character) if place in marks else _shown(character) for place, character in enumerate(token))


def marked_text(tokens: Sequence[str], marked: Sequence[bool]) -> str:
    """A text of T tokens on one line, with OPEN and CLOSE around each run of marked tokens.

    Characters are shown as `show_token` does it, those that make a special token over the border of two tokens
    included; an OPEN or CLOSE of the text itself is written as its code. A space that begins a run's first token stands
    before the OPEN, unless it is the whole token; so a token is marked if its last character stands between the marks.
    Empty tokens are left out, except from a text in which one of them is marked: there, each is `\\empty`.
    """
    text = "".join(tokens)
    coded = {match.start() for match in _MARK.finditer(text)}
    characters = [_coded(c) if c in (OPEN, CLOSE) or place in coded else _shown(c) for place, c in enumerate(text)]
    ends = accumulate(map(len, tokens))
    parts = ["".join(characters[end - len(token) : end]) for token, end in zip(tokens, ends, strict=True)]
    if any(mark and not token for token, mark in zip(tokens, marked, strict=True)):
        parts = [part or EMPTY for part in parts]
    shown, start = "", 0
    for mark, run in groupby(marked, bool):
        first, stop = tokens[start], start + len(list(run))
        inside = "".join(parts[start:stop])
        space = " " if mark and len(first) > 1 and first[0] == " " else ""
        shown += f"{space}{OPEN}{inside[len(space) :]}{CLOSE}" if mark else inside
        start = stop
    return shown


@cache
def _shown(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() and character != "\ufffd" else _coded(character)


def _coded(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def token_lines(tokens: Sequence[str], values: Iterable[int | str]) -> str:
    """One line for each token: the token as shown, a tab, its value."""
    return "".join([f"{token}\t{value}\n" for token, value in zip(map(show_token, tokens), values, strict=True)])


def normalised(activations: Sequence[Activations]) -> list[list[int]]:
    """Integers 0 to 10 in place of activations: min(10, floor(10 relu(x) / max)), the maximum over all that is given.

    All zeros where the maximum is not positive; NaN (a position left out of the record) is 0. Source: Bills et al. 2023.
    """
    ends = np.cumsum([len(values) for values in activations])
    flat = np.fmax(np.concatenate([np.zeros(0), *activations]), 0.0)
    highest = float(flat.max(initial=0.0))
    numbers = np.minimum(10, np.floor(10 * (flat / highest))).astype(int) if highest > 0 else np.zeros(len(flat), int)
    listed = numbers.tolist()
    return [listed[end - len(values) : end] for values, end in zip(activations, ends.tolist(), strict=True)]


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

    def record(lines: list[tuple[str, int]], revealed: int) -> FewShotRecord:
        return FewShotRecord(tuple(token for token, _ in lines), tuple(value for _, value in lines), revealed)

    return tuple(
        FewShotNeuron(neuron["explanation"], tuple(record(**one) for one in neuron["record"]))
        for neuron in prompt.examples()["neuron"]
    )
