"""Passes of a model behind one shared prefix: its keys and values are computed once and never changed.

Shapes: B rows, L tokens, P tokens of the prefix, R reads, V vocabulary, H heads of keys, D head size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a text that many rows carry on from, (1, H, P, D) each, a pair for each layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    length: int


def growing_cache(prefix: Prefix | None, rows: int) -> Cache:
    """A cache that starts as a prefix, for `rows` rows; it grows by new tensors and leaves the prefix as it is."""
    if prefix is None:
        return DynamicCache()
    layers = []
    for keys, values in prefix.layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        layers.append(layer)
    return Cache(layers=layers)


@torch.inference_mode()
def extend(model: Any, prefix: Prefix | None, ids: Sequence[int]) -> Prefix | None:
    """The prefix, or none, with more tokens behind it; the one given stays as it was."""
    if not ids:
        return prefix
    cache = growing_cache(prefix, rows=1)
    start = prefix.length if prefix else 0
    _last_logits(model, cache, torch.tensor([list(ids)]), start)
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers), start + len(ids))


@torch.inference_mode()
def next_logits(model: Any, cache: Cache, tokens: Tensor, start: int) -> Tensor:
    """Logits after `tokens` (B, L), which stand at position `start` and go into the cache -> (B, V) float32."""
    return _last_logits(model, cache, tokens, start)


def _last_logits(model: Any, cache: Cache, tokens: Tensor, start: int) -> Tensor:
    device = model.device
    rows, length = tokens.shape
    positions = torch.arange(start, start + length, device=device)[None].expand(rows, -1)
    last = torch.full((rows,), length - 1, device=device)
    with head_reads_only(model, torch.arange(rows, device=device), last):
        output = model(input_ids=tokens.to(device), position_ids=positions, past_key_values=cache, use_cache=True)
    logits: Tensor = output.logits[0].float()  # (1, B, V) -> (B, V)
    return logits


@contextmanager
def head_reads_only(model: Any, rows: Tensor, tokens: Tensor) -> Iterator[None]:
    """Give the output layer only the hidden states of the reads, (B, L, D) -> (1, R, D); it is the widest by far."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, tokens][None], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
