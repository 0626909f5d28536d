"""What every language model engine is: messages in, replies or probabilities of numbers out.

Shapes: S slots of a prompt.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

NUMBERS = range(11)
"""The numbers that an activation is written as in a prompt."""
_SURROGATES = re.compile("[\ud800-\udfff]")


def valid_text(text: str) -> str:
    """A text that any table can hold: a half of a surrogate pair, as JSON may escape one, becomes U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    A model without a chat template reads the contents joined: a blank line stands before a system or user turn, and an
    assistant's turn carries on the line, after a space unless it starts with white space. A chat model gets each content
    without its leading white space, as most templates trim it anyway.
    """

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Request:
    """What is asked of a model."""

    messages: tuple[Message, ...]
    max_tokens: int
    """Of each reply."""
    n: int = 1
    """Replies wanted."""
    temperature: float = 1.0
    """0 is greedy, and then all `n` are one reply."""
    stop: tuple[str, ...] = ()
    """A reply ends before any of these texts."""
    seed: int = 0
    schema: Mapping[str, Any] | None = None
    """JSON schema that the replies must follow; only engines with the capability `json_schema` see to it."""
    logprobs: int = 0
    """Alternatives wanted for each token of a reply; an engine gives as many as it can, none without the capability."""
    attempt: int = 0
    """Raised where an earlier reply to the same request could not be used, so that another one is drawn."""


@dataclass(frozen=True)
class ReplyToken:
    """One token of a reply, with the likeliest tokens in its place."""

    text: str
    alternatives: tuple[tuple[str, float], ...]
    """(text, log-probability), the likeliest first; the token itself is among them."""


@dataclass(frozen=True)
class Completion:
    """One reply and what it took; every reply of a request names the same `prompt_tokens`, which were read once."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finished: bool
    """False where the token limit cut the reply."""
    tokens: tuple[ReplyToken, ...] = ()
    """The reply's tokens; joined, they are the text; empty where no log-probabilities were asked for or given."""
    model: str = ""
    """The model that the server names in its reply, empty where it names none."""


@dataclass(frozen=True)
class NumberPrompt:
    """A conversation and the beginning of the assistant's reply to it, with slots where numbers are expected.

    The reply is given in pieces, each tokenised by itself, so that a slot is a token index whatever the text holds.
    """

    messages: tuple[Message, ...]
    reply: tuple[str, ...]
    slots: tuple[int, ...]
    """Indices of pieces, rising: the numbers are scored as continuations of the text that ends right before the piece;
    the number of pieces is a slot behind the last one."""


@dataclass(frozen=True)
class NumberScores:
    """How likely each of NUMBERS is at each slot of a prompt."""

    probabilities: npt.NDArray[np.float32] | None
    """(S, 11), each row sums to 1; None where `error` says why."""
    coverage: npt.NDArray[np.float32] | None
    """(S,) probability of all numbers together before they were made to sum to 1."""
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Capabilities:
    """What a model's server really does; servers silently ignore what they do not know."""

    logprobs: int = 0
    """Alternatives given for each token of a reply at most; 0 without log-probabilities."""
    reply_numbers: bool = False
    """Scores prompts whose only slot is the start of the reply (`reply` empty)."""
    prompt_numbers: bool = False
    """Scores any prompt."""
    json_schema: bool = False
    n: bool = False
    """Several replies to one request."""
    seed: bool = False


@dataclass(frozen=True)
class Need:
    """What a method cannot do without."""

    capability: str
    """Name of the field of `Capabilities`."""
    words: str
    """What the endpoint has to give, for the message that says that it does not."""

    def met(self, capabilities: Capabilities) -> bool:
        return bool(getattr(capabilities, self.capability))


class EngineError(Exception):
    """This request cannot be answered; the message becomes the row's `error`, and the run goes on."""


class PromptTooLong(EngineError):
    """The prompt and its reply do not fit the model's context."""


def refuse_too_long(tokens: int, context: int | None) -> None:
    """Raises PromptTooLong where a prompt and its reply have more tokens than the context."""
    if context is not None and tokens > context:
        raise PromptTooLong(f"{tokens} tokens do not fit the model's context of {context}")


class Refused(EngineError):
    """The model declines to answer; another attempt may succeed."""

    def __init__(self, message: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(message)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


class Engine(Protocol):
    """A language model that completes conversations and scores numbers."""

    name: str
    """Model and revision, as written into tables."""
    context: int | None
    """Tokens of prompt and reply together at most; None where it is not known, and then PromptTooLong tells."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that the messages make; an estimate where the tokenizer is not at hand."""
        ...

    async def capabilities(self) -> Capabilities:
        """What the model can do; found out once."""
        ...

    async def complete(self, request: Request) -> list[Completion]:
        """`request.n` replies, none holding a stop text.

        Raises:
            PromptTooLong: the prompt and the reply do not fit the context.
            Refused: all replies are refusals.
            EngineError: no reply, for another reason that is this request's own.
            UserError: nothing can be asked: wrong key, unknown model, no server, no budget.
        """
        ...

    async def score(self, prompts: Sequence[NumberPrompt]) -> list[NumberScores]:
        """One result for each prompt, in order; a prompt that cannot be scored has an `error`.

        Raises:
            UserError: as `complete`, or the model lacks the capability.
        """
        ...

    def mark_useless(self, requests: Sequence[Request]) -> None:
        """The replies to these requests could not be used: where a stage is redone, others are asked for in their place."""
        ...

    async def aclose(self) -> None:
        """Give connections back; nothing is lost."""
        ...
