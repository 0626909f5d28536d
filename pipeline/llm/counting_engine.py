"""The engine that answers nothing and counts what it is asked, so that a run can be costed before it is paid."""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import count, pairwise
from typing import Any

import numpy as np

from pipeline.llm.engine import (
    NUMBERS,
    Capabilities,
    Completion,
    Message,
    NumberPrompt,
    NumberScores,
    PromptTooLong,
    Request,
    refuse_too_long,
)
from pipeline.llm.prompt_encoder import PromptEncoder

BLOCK = 16
"""Tokens of a block of a prefix cache: servers keep whole blocks, those of vLLM are of this size."""

NUMBER_TOKENS = 2
"""Tokens of a reply that is a number, at most."""


@dataclass(frozen=True)
class Usage:
    """What some requests take."""

    calls: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    """Those of the prompt tokens that no earlier request began with, so that a prefix cache has to compute them."""
    likely_tokens: int = 0
    """Of all replies, if they are like the examples of replies that the prompts hold."""
    most_tokens: int = 0
    """Of all replies at most: their token limits."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))


class CountingEngine:
    """Counts requests as an endpoint would bill them: one for all replies of a request, one for each prompt with numbers.

    Replies are empty, and a request that is repeated because of that (`attempt` above 0) is not counted; with stand-ins for
    replies all requests are. Numbers are all alike. Nothing is sent, no model is needed.
    """

    name = "counted"

    def __init__(
        self,
        tokenizer: Any,
        context: int | None,
        capabilities: Capabilities,
        replies_grow: bool = False,
        stand_in: Callable[[Request, int], str] | None = None,
    ) -> None:
        """A counter for one stage.

        Args:
            tokenizer: a fast transformers tokenizer.
            context: tokens of prompt and reply together at most.
            capabilities: those of the engine that it stands for; methods ask in other ways where one is missing.
            replies_grow: whether the longer the question, the longer the reply, as where it has a number for each token.
            stand_in: a reply that can be used, given its number, where what is asked next depends on replies.
        """
        self.context = context
        self._capabilities, self._replies_grow, self._stand_in = capabilities, replies_grow, stand_in
        self._replies = count()
        self._encoder = PromptEncoder(tokenizer)
        self._examples = lru_cache(maxsize=64)(self._count_examples)
        self._blocks: set[int] = set()
        self._used = Usage()
        self.most_replies = 1
        """The most replies that a single request wanted."""
        self.first: Request | NumberPrompt | None = None
        """The first thing that was asked."""

    def take(self) -> Usage:
        """What was asked since the last call; what was read before stays in the prefix cache."""
        used, self._used = self._used, Usage()
        return used

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that the messages make."""
        return len(self._encoder.conversation(messages).ids)

    async def capabilities(self) -> Capabilities:
        """As given."""
        return self._capabilities

    async def complete(self, request: Request) -> list[Completion]:
        """Count a request.

        Raises:
            PromptTooLong: as an engine with this context would.
        """
        self.first = self.first or request
        replies = request.n if request.temperature > 0 else 1
        texts = [self._stand_in(request, next(self._replies)) if self._stand_in else "" for _ in range(replies)]
        if request.attempt == 0 or self._stand_in is not None:
            prompt = self._encoder.conversation(request.messages)
            refuse_too_long(len(prompt.ids) + request.max_tokens, self.context)
            self.most_replies = max(self.most_replies, replies)
            likely = self._likely(request, len(prompt.own), texts)
            self._count(prompt.ids, replies * likely, replies * request.max_tokens)
        return [Completion(text, 0, 0, finished=True) for text in texts] * (request.n // replies)

    async def score(self, prompts: Sequence[NumberPrompt]) -> list[NumberScores]:
        """Count prompts; one that does not fit the context has an error, as with other engines."""
        self.first = self.first or next(iter(prompts), None)
        return [self._scored(prompt) for prompt in prompts]

    def mark_useless(self, requests: Sequence[Request]) -> None:
        """No reply is kept."""

    async def aclose(self) -> None:
        """There is nothing to give back."""

    def _scored(self, prompt: NumberPrompt) -> NumberScores:
        pieces = self._encoder.reply(prompt.reply) if prompt.reply else []
        ids = sum(pieces, self._encoder.conversation(prompt.messages).ids)
        try:
            refuse_too_long(len(ids), self.context)
        except PromptTooLong as error:
            return NumberScores(None, None, str(error))
        self._count(ids, 1, 1 if prompt.reply else NUMBER_TOKENS)
        slots, numbers = len(prompt.slots), len(NUMBERS)
        equal = np.full((slots, numbers), 1 / numbers, dtype=np.float32)
        return NumberScores(equal, np.ones(slots, dtype=np.float32), prompt_tokens=len(ids))

    def _likely(self, request: Request, question_tokens: int, texts: Sequence[str]) -> int:
        """Tokens of a reply and its end: the longest of these texts, or without any like those in the prompt's examples."""
        questions, replies, examples = self._examples(request.messages[:-1])
        if any(texts):
            likely = max(len(self._encoder.encode(text)) for text in texts)
        elif examples:
            likely = round(question_tokens * replies / questions if self._replies_grow else replies / examples)
        else:
            likely = request.max_tokens
        return min(likely + 1, request.max_tokens)

    def _count_examples(self, messages: tuple[Message, ...]) -> tuple[int, int, int]:
        """Tokens of all questions and of all replies to them, and the number of replies."""
        pairs = [(one, two) for one, two in pairwise(messages) if (one.role, two.role) == ("user", "assistant")]
        questions, replies = (sum(len(self._encoder.encode(pair[i].content)) for pair in pairs) for i in (0, 1))
        return questions, replies, len(pairs)

    def _count(self, ids: tuple[int, ...], likely_tokens: int, most_tokens: int) -> None:
        """Add a request; tokens of whole blocks that an earlier request began with are not computed again."""
        known = chain = 0
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            chain = hash((chain, ids[start : start + BLOCK]))
            if chain in self._blocks and known == start:
                known = start + BLOCK
            self._blocks.add(chain)
        self._used += Usage(1, len(ids), len(ids) - known, likely_tokens, most_tokens)
