"""Real text for planted units: Wikipedia articles, with passages of code and of other languages between their paragraphs.

N sequences of T tokens at most, U units.
"""

import ast
import heapq
import inspect
import json.decoder
import posixpath
import shlex
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.planted_tokens.units import TokenUnit

FOLDER = Path(__file__).parent
MODULES = (heapq, json.decoder, posixpath, shlex, statistics, textwrap)
"""Of the standard library, whose source is the code."""
CODE_LINES = 9
"""Lines of a passage of code."""
CODE_EACH = 4
"""Passages of a module."""
KINDS = ("code", "french", "german")
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sequenced:
    """A sequence, and what kind of passage its tokens stand in."""

    token_ids: list[int]
    tokens: list[str]
    inside: dict[str, Flags]
    """By kind of passage, (T,)."""


def passages() -> list[tuple[str, str]]:
    """Kind and text of all passages, the kinds in turn."""
    found = {kind: (FOLDER / f"{kind}.txt").read_text(encoding="utf-8").splitlines() for kind in ("french", "german")}
    found["code"] = [piece for module in MODULES for piece in _code(module)]
    most = max(map(len, found.values()))
    return [(kind, found[kind][number]) for number in range(most) for kind in KINDS if number < len(found[kind])]


def _code(module: ModuleType) -> list[str]:
    """CODE_EACH pieces of CODE_LINES lines of a module's functions, without their docstrings, which are prose."""
    lines: list[str] = []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef):
            node.body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
            lines += ast.unparse(node).splitlines()
    starts = range(0, len(lines) - CODE_LINES, CODE_LINES)
    return ["\n".join(lines[start : start + CODE_LINES]) for start in starts][:CODE_EACH]


def sequences(documents: Sequence[str], tokenizer: Any, count: int, length: int, seed: int = 0) -> list[Sequenced]:
    """Windows of the documents: all that hold a passage, and others at random, `count` together.

    The passages are spread over the documents evenly, each stands in the text once.

    Args:
        tokenizer: a fast tokenizer of transformers.
        length: tokens in a window; what is left over at a document's end is dropped.
    """
    found = [window for text, spans in _with_passages(documents) for window in _windows(text, spans, tokenizer, length)]
    rng = np.random.default_rng(seed)
    mixed = [window for window in found if any(flags.any() for flags in window.inside.values())]
    plain = [window for window in found if not any(flags.any() for flags in window.inside.values())]
    rest = rng.permutation(len(plain))[: max(0, count - len(mixed))]
    return mixed[:count] + [plain[place] for place in sorted(rest)]


def _with_passages(documents: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """Each document with its share of the passages after its paragraphs; kind, start and stop of each, in characters."""
    shares: list[list[tuple[str, str]]] = [[] for _ in documents]
    for number, passage in enumerate(passages()):
        shares[number % len(documents)].append(passage)
    for text, share in zip(documents, shares, strict=True):
        paragraphs = text.split("\n")
        parts: list[str] = []
        spans: list[tuple[str, int, int]] = []
        step = max(1, len(paragraphs) // (len(share) + 1))
        for place, paragraph in enumerate(paragraphs, start=1):
            parts.append(paragraph)
            if place % step == 0 and len(spans) < len(share):
                kind, inserted = share[len(spans)]
                start = sum(map(len, parts)) + len(parts)
                spans.append((kind, start, start + len(inserted)))
                parts.append(inserted)
        yield "\n".join(parts), spans


def _windows(text: str, spans: Sequence[tuple[str, int, int]], tokenizer: Any, length: int) -> Iterator[Sequenced]:
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    ids, offsets = encoded["input_ids"], np.asarray(encoded["offset_mapping"]).reshape(-1, 2)
    inside = {kind: np.zeros(len(ids), dtype=bool) for kind in KINDS}
    for kind, start, stop in spans:
        inside[kind] |= (offsets[:, 0] < stop) & (offsets[:, 1] > start)
    for start in range(0, len(ids) - length + 1, length):
        part = slice(start, start + length)
        tokens = [tokenizer.decode([token]) for token in ids[part]]
        yield Sequenced(ids[part], tokens, {kind: flags[part] for kind, flags in inside.items()})


def activations(units: Sequence[TokenUnit], texts: Sequence[Sequenced]) -> npt.NDArray[np.float32]:
    """(N, T, U) of sequences of one length."""
    rows = [np.stack([unit.values(text.tokens, text.inside) for unit in units], axis=1) for text in texts]
    return np.stack(rows)
