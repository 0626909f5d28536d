"""Replies sampled token by token behind a prompt that was read once.

Shapes: B replies, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.llm.engine import EngineError
from pipeline.llm.forward import Prefix, growing_cache, next_logits


def sample(
    model: Any,
    tokenizer: Any,
    prefix: Prefix,
    last: int,
    n: int,
    temperature: float,
    max_tokens: int,
    stop: Sequence[str],
    seed: int,
) -> list[tuple[str, int, bool]]:
    """`n` replies to the prompt that is `prefix` and the token `last`: text, tokens, whether it ended.

    A text comes without leading white space.
    The i-th reply draws from a generator of its own, seeded by `seed` and i. Temperature 0 takes the likeliest token.
    """
    rows = n if temperature > 0 else 1
    generators = [torch.Generator().manual_seed(_seed(seed, row)) for row in range(rows)]
    ends = _end_tokens(model, tokenizer)
    cache = growing_cache(prefix, rows)
    tokens = torch.full((rows, 1), last, dtype=torch.long)
    replies: list[list[int]] = [[] for _ in range(rows)]
    texts: list[str | None] = [None] * rows
    for step in range(max_tokens):
        logits = next_logits(model, cache, tokens, prefix.length + step).cpu()
        tokens = _draw(logits, temperature, generators)  # (B, V) -> (B, 1)
        for row, token in enumerate(tokens[:, 0].tolist()):
            if texts[row] is None:
                replies[row].append(token)
                texts[row] = _ended(tokenizer, replies[row], ends, stop)
        if None not in texts:
            break
    found = [
        (_decoded(tokenizer, reply) if text is None else text, len(reply), text is not None)
        for text, reply in zip(texts, replies, strict=True)
    ]
    return found if temperature > 0 else found * n


def _draw(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> Tensor:
    """One token for each row, (B, V) -> (B, 1)."""
    if temperature <= 0:
        return logits.argmax(dim=1, keepdim=True)
    chances = (logits / temperature).softmax(dim=1)
    if not bool(chances.isfinite().all()):
        raise EngineError("the model's output is not a number")
    drawn = [torch.multinomial(row, 1, generator=generator) for row, generator in zip(chances, generators, strict=True)]
    return torch.stack(drawn)


def _ended(tokenizer: Any, reply: list[int], ends: set[int], stop: Sequence[str]) -> str | None:
    """The whole reply where it has ended, without its end token or stop text; else None."""
    if reply[-1] in ends:
        return _decoded(tokenizer, reply[:-1])
    text = _decoded(tokenizer, reply)
    places = [place for mark in stop if (place := text.find(mark)) >= 0]
    return text[: min(places)] if places else None


def _decoded(tokenizer: Any, reply: list[int]) -> str:
    return str(tokenizer.decode(reply, skip_special_tokens=True)).lstrip()


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Token ids that end a reply, by the tokenizer and by the model's own generation settings."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None}


def _seed(seed: int, row: int) -> int:
    return int(np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0] >> np.uint64(1))
