"""Probabilities of the numbers 0 to 10 from those of tokens, for tokenizers that write "10" in one token or in two.

A number is the sequence of its tokens. The probability of a sequence is the product of its tokens' probabilities, each
after the ones before it. Where a number's tokens begin another number's ("1" begins "10" wherever each digit is a
token), the shorter number gets only what the longer one leaves: P(10) = P("1") P("0" | "1") and
P(1) = P("1") (1 - P("0" | "1")). That is exact; it needs one more token read for each such beginning.

Shapes: S slots, W wanted tokens, N nodes (beginnings of numbers).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.llm.engine import NUMBERS
from pipeline.llm.prompt_encoder import PromptEncoder

_AT_SLOT = 0  # place of the slot's own log-probabilities; those after node n are at 1 + n

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Node:
    """A beginning of at least one number: the token that ends it, and the node of the beginning before."""

    token: int
    parent: int
    """Index of a node; -1 where this token comes first."""
    depth: int
    """Tokens before this one."""


@dataclass(frozen=True)
class NumberTokens:
    """How a tokenizer writes the numbers."""

    ids: tuple[tuple[int, ...], ...]
    """Token ids of each of NUMBERS."""
    nodes: tuple[Node, ...]
    """Every proper beginning of a number, parents first; none where each number is one token."""
    wanted: tuple[int, ...]
    """All tokens that numbers are written with, rising."""

    def numbers(self, log_probabilities: Probabilities) -> Probabilities:
        """Log-probabilities of the numbers.

        Args:
            log_probabilities: (S, 1 + N, W) of the wanted tokens, at the slot itself and after each node.

        Returns:
            (S, 11), not normalised.
        """
        columns = [self._number(ids, log_probabilities) for ids in self.ids]
        return np.stack(columns, axis=1)

    def _number(self, ids: tuple[int, ...], log_probabilities: Probabilities) -> Probabilities:
        column = {token: place for place, token in enumerate(self.wanted)}
        total = np.zeros(len(log_probabilities))
        after = _AT_SLOT
        for token in ids:
            total = total + log_probabilities[:, after, column[token]]
            after = self._after(after, token)
        longer = [column[token] for token in self._next_tokens(ids)]
        if not longer:
            return total
        left = 1.0 - np.exp(log_probabilities[:, after, longer]).sum(axis=1)
        return total + np.log(np.maximum(left, 1e-300))

    def _after(self, before: int, token: int) -> int:
        """Where log-probabilities after one more token are; at the slot again where no number goes on from there."""
        found = (place for place, node in enumerate(self.nodes) if (1 + node.parent, node.token) == (before, token))
        return 1 + next(found, -1)

    def _next_tokens(self, ids: tuple[int, ...]) -> set[int]:
        return {other[len(ids)] for other in self.ids if len(other) > len(ids) and other[: len(ids)] == ids}


def normalised(logs: Probabilities) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Probabilities of the numbers from (S, 11) log-probabilities, each row summing to 1, and (S,) their sums before that.

    A row without any number has a sum of 0 and NaN as its probabilities, so that nobody takes them for a value.
    """
    with np.errstate(under="ignore", invalid="ignore"):
        total = np.logaddexp.reduce(logs, axis=1)
        return np.exp(logs - total[:, None]).astype(np.float32), np.exp(total).astype(np.float32)


def number_tokens(encoder: PromptEncoder) -> NumberTokens:
    """How the encoder's tokenizer writes the numbers after a tab.

    Raises:
        UserError: two numbers are written alike, as when the tokenizer has no digits.
    """
    ids = tuple(encoder.encode(str(number), before="\t") for number in NUMBERS)
    if len(set(ids)) < len(ids) or not all(ids):
        raise UserError(
            f"the tokenizer writes the numbers 0 to 10 as {ids}, not all different; "
            "all_at_once needs a model whose tokenizer tells them apart"
        )
    beginnings = sorted(
        {number[:end] for number in ids for end in range(1, len(number))}, key=lambda part: (len(part), part)
    )
    nodes = tuple(
        Node(part[-1], beginnings.index(part[:-1]) if len(part) > 1 else -1, len(part) - 1) for part in beginnings
    )
    return NumberTokens(ids, nodes, tuple(sorted({token for number in ids for token in number})))
