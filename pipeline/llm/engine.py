"""What every language model engine is: messages in, replies or probabilities of numbers out.

Shapes: S slots of a passage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

NUMBERS = range(11)
"""The numbers that an activation is written as in a prompt."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    A model without a chat template reads the contents one after the other: a blank line stands before a system or user
    turn, and an assistant's turn carries on the line, after a space unless it starts with white space itself. A chat
    model gets each content without its leading white space, as most templates trim it anyway.
    """

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Completion:
    """One reply and what it took; every reply of a request names the same `prompt_tokens`, which were read once."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool
    """False where the token limit cut the reply."""


@dataclass(frozen=True)
class Passage:
    """A conversation and the beginning of the assistant's reply to it, with slots where numbers are expected.

    The reply is given in pieces, each tokenised by itself, so that a slot is a token index whatever the text holds.
    """

    messages: tuple[Message, ...]
    reply: tuple[str, ...]
    slots: tuple[int, ...]
    """Indices of pieces, rising: the numbers are scored as continuations of the text that ends right before the piece."""


@dataclass(frozen=True)
class NumberScores:
    """How likely each of NUMBERS is at each slot of a passage."""

    probabilities: npt.NDArray[np.float32] | None
    """(S, 11), each row sums to 1; None where `error` says why."""
    coverage: npt.NDArray[np.float32] | None
    """(S,) probability of all numbers together before they were made to sum to 1."""
    error: str = ""


class EngineError(Exception):
    """This request cannot be answered; the message becomes the row's `error`, and the run goes on."""


class Engine(Protocol):
    """A language model that completes conversations and scores numbers."""

    name: str
    """Model and revision, as written into tables."""
    context: int
    """Tokens of prompt and reply together at most."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that the messages make."""
        ...

    def complete(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        stop: Sequence[str],
        seed: int,
    ) -> list[Completion]:
        """`n` replies, none holding a `stop` text; temperature 0 is greedy, and then all `n` are one reply.

        Raises:
            EngineError: the prompt and `max_tokens` do not fit the context.
        """
        ...

    def score(self, passages: Sequence[Passage]) -> list[NumberScores]:
        """One result for each passage, in order; a passage that cannot be scored has an `error`."""
        ...
