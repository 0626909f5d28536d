"""Replies sampled token by token behind a prompt that was read once.

Shapes: B replies, V vocabulary.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.llm.engine import EngineError, ReplyToken, Request
from pipeline.llm.prefix_cache import Prefix, next_logits

MOST_ALTERNATIVES = 20
"""Alternatives given for each token of a reply at most."""


@dataclass
class Reply:
    """A reply as it grows."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    """Without leading white space, an end token, or a stop text and what follows it."""
    finished: bool = False
    ends: list[int] = field(default_factory=list)
    """For each token of the text the length of the text up to it, without a character of which it has some bytes only."""
    alternatives: list[tuple[tuple[str, float], ...]] = field(default_factory=list)
    """As in `ReplyToken`, for each token; empty where none are wanted."""

    def tokens(self) -> tuple[ReplyToken, ...]:
        """The tokens that make the text; those that only end it are left out, and the last one has what is left."""
        starts = [start for start in (0, *self.ends[:-1]) if start < len(self.text)]
        ends = [*self.ends[: len(starts) - 1], len(self.text)]
        return tuple(
            ReplyToken(self.text[start:end], alternatives)
            for start, end, alternatives in zip(starts, ends, self.alternatives, strict=False)
        )


async def sample(model: Any, tokenizer: Any, prefix: Prefix, last: int, request: Request) -> list[Reply]:
    """Replies to the prompt that is `prefix` and the token `last`.

    The i-th reply draws from a generator of its own, seeded by `request.seed`, `request.attempt` and i. Temperature 0
    takes the likeliest token. Other tasks have their turn after each token.

    Raises:
        EngineError: the model's output is not a number.
    """
    rows = request.n if request.temperature > 0 else 1
    generators = [torch.Generator().manual_seed(_seed(request, row)) for row in range(rows)]
    reader = _Reader(model, tokenizer, request)
    cache, start = prefix.cache(grows=True), prefix.length
    tokens = torch.full((rows, 1), last, dtype=torch.long)
    replies = [Reply() for _ in range(rows)]
    for step in range(request.max_tokens):
        logits = next_logits(model, cache, tokens, start + step).cpu()
        tokens = _draw(logits, request.temperature, generators)  # (B, V) -> (B, 1)
        for reply, row, token in zip(replies, logits, tokens[:, 0].tolist(), strict=True):
            if not reply.finished:
                reader.add(reply, row, token)
        if all(reply.finished for reply in replies):
            break
        await asyncio.sleep(0)
    return replies if request.temperature > 0 else replies * request.n


def _draw(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """One token for each row, (B, V) -> (B, 1)."""
    chances = (logits / temperature if temperature > 0 else logits).softmax(dim=1)
    if not bool(chances.isfinite().all()):
        raise EngineError("the model's output is not a number")
    if temperature <= 0:
        return logits.argmax(dim=1, keepdim=True)
    drawn = [torch.multinomial(row, 1, generator=generator) for row, generator in zip(chances, generators, strict=True)]
    return torch.stack(drawn)


class _Reader:
    """Reads drawn tokens into replies."""

    def __init__(self, model: Any, tokenizer: Any, request: Request) -> None:
        self._tokenizer, self._stop = tokenizer, request.stop
        self._ends = _end_tokens(model, tokenizer)
        self._wanted = min(request.logprobs, MOST_ALTERNATIVES)

    def add(self, reply: Reply, logits: Tensor, token: int) -> None:
        """Put a token behind the reply and see whether that ends it; `logits` (V,) are those it was drawn from."""
        if self._wanted:
            reply.alternatives.append(self._alternatives(logits, token, reply.ids[-1:]))
        reply.ids.append(token)
        if token in self._ends:
            reply.finished = True
            return
        text = self._decoded(reply.ids).lstrip()
        places = [place for mark in self._stop if (place := text.find(mark)) >= 0]
        reply.finished = bool(places)
        reply.text = text[: min(places)] if places else text
        whole = len(reply.text if places else text.rstrip("\ufffd"))
        reply.ends.append(max(whole, *reply.ends[-1:], 0))

    def _alternatives(self, logits: Tensor, token: int, before: list[int]) -> tuple[tuple[str, float], ...]:
        """The likeliest tokens behind the one `before`, and the one drawn, with their log-probabilities."""
        logs = logits.log_softmax(dim=0)
        ids = logs.topk(min(self._wanted, len(logs))).indices.tolist()
        if token not in ids:
            ids.append(token)
        return tuple((self._piece(before, other), float(logs[other])) for other in ids)

    def _piece(self, before: list[int], token: int) -> str:
        """The text that a token adds, without leading white space at the start of a reply."""
        if not before:
            return self._decoded([token]).lstrip()
        return self._decoded([*before, token])[len(self._decoded(before)) :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Token ids that end a reply, by the tokenizer and by the model's own generation settings."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None}


def _seed(request: Request, row: int) -> int:
    parts = [request.seed, request.attempt, row]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
