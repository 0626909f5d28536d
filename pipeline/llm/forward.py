"""Rows of tokens read behind one shared prefix: its keys and values are computed once and never changed.

Shapes: B rows, L tokens of the longest row, P tokens of the prefix, R reads, V vocabulary, H heads, D head size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from pipeline.errors import UserError


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a text that many rows carry on from, (1, H, P, D) each, a pair for each layer."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    length: int


@dataclass(frozen=True)
class Row:
    """Tokens behind a prefix: a main text, and behind it branches that leave it at some token.

    A token sees the prefix, and of its row itself and what its parents see.
    """

    ids: list[int]
    parents: list[int]
    """For each token the index in the row of the token before it; -1 for the prefix."""
    reads: list[int]
    """Indices of the tokens whose next-token distribution is wanted."""


class _SharedLayer(DynamicLayer):
    """The keys and values of one layer of a prefix, which every row sees and none changes."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        rows = key_states.shape[0]
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


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
def extend(model: Any, prefix: Prefix | None, ids: Sequence[int]) -> Prefix:
    """The prefix, or none, with more tokens behind it; the one given stays as it was."""
    if not ids:
        assert prefix is not None, "a prefix has at least one token"
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
    with _head_reads_only(model, torch.arange(rows, device=device), last):
        output = model(input_ids=tokens.to(device), position_ids=positions, past_key_values=cache, use_cache=True)
    return output.logits[0].float()  # (1, B, V) -> (B, V)


@torch.inference_mode()
def read_rows(model: Any, prefix: Prefix, rows: Sequence[Row], wanted: Sequence[int]) -> Tensor:
    """Log-probabilities of the wanted next tokens at every read of every row -> (R, len(wanted)) float32, row by row."""
    device = model.device
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    depth = torch.zeros((len(rows), length), dtype=torch.long)
    sees = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding sees itself, so that nothing is NaN
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        _fill(row.parents, depth[number], sees[number])
    masks = _masks(model, prefix.length, depth, sees)
    at_row = torch.tensor(
        [number for number, row in enumerate(rows) for _ in row.reads], dtype=torch.long, device=device
    )
    at_token = torch.tensor([token for row in rows for token in row.reads], dtype=torch.long, device=device)
    cache = Cache(layers=[_SharedLayer(keys, values) for keys, values in prefix.layers])
    with _head_reads_only(model, at_row, at_token):
        output = model(
            input_ids=ids.to(device), attention_mask=masks, position_ids=(depth + prefix.length).to(device),
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
    logits = output.logits[0].float()  # (1, R, V) -> (R, V)
    return logits[:, list(wanted)] - logits.logsumexp(dim=1, keepdim=True)


def _fill(parents: Sequence[int], depth: Tensor, sees: Tensor) -> None:
    """Depths (L,) and who sees whom (L, L) of one row, from the parents of its tokens."""
    for token, parent in enumerate(parents):
        if parent >= 0:
            depth[token] = depth[parent] + 1
            sees[token] |= sees[parent]


def _masks(model: Any, shared: int, depth: Tensor, sees: Tensor) -> Tensor | dict[str, Tensor]:
    """Additive attention masks (B, 1, L, P + L): one, or one for each kind of layer where the model mixes kinds."""
    config = model.config.get_text_config(decoder=True)
    rows, length = depth.shape
    visible = torch.cat([torch.ones(rows, length, shared, dtype=torch.bool), sees], dim=2)
    at = torch.cat([torch.arange(shared).expand(rows, -1), depth + shared], dim=1)  # (B, P + L) positions
    distance = (depth + shared)[:, :, None] - at[:, None, :]

    def additive(window: int | None) -> Tensor:
        allowed = visible if window is None else visible & (distance < window)
        mask = torch.zeros(allowed.shape, dtype=model.dtype).masked_fill_(~allowed, torch.finfo(model.dtype).min)
        return mask[:, None].to(model.device)

    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not kinds:
        return additive(window)
    if unknown := kinds - {"full_attention", "sliding_attention"}:
        raise UserError(
            f"layers of kind {', '.join(sorted(unknown))} cannot be read behind a shared prefix; use another model"
        )
    masks = {kind: additive(window if kind == "sliding_attention" else None) for kind in sorted(kinds)}
    return masks if len(masks) > 1 else next(iter(masks.values()))


@contextmanager
def _head_reads_only(model: Any, rows: Tensor, tokens: Tensor) -> Iterator[None]:
    """Give the output layer only the hidden states of the reads, (B, L, D) -> (1, R, D); it is the widest by far."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, tokens][None], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
