"""Reading behind a shared prefix: its keys and values are computed once and never changed.

Shapes: B rows, L tokens of the longest row, P tokens of the prefix, R reads, V vocabulary, W wanted tokens, H heads of keys,
D head size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from pipeline.errors import UserError

CHECK_TOLERANCE = {True: 0.01, False: 1.0}
"""Difference of log-probabilities that ends a run, by whether the weights are float32."""
_READS_AT_ONCE = 64  # logits of so many reads stay in the processor's cache while they are summed


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a text that many rows carry on from, (1, H, P, D) each, a pair for each layer; none without text."""

    layers: tuple[tuple[Tensor, Tensor], ...] = ()
    length: int = 0

    def cache(self, *, grows: bool) -> Cache:
        """A cache that starts as the prefix, for any number of rows, and leaves it as it is.

        Args:
            grows: whether what is read behind the prefix is kept too.
        """
        if not self.layers:
            return DynamicCache()
        return Cache(layers=[_PrefixLayer(keys, values, grows) for keys, values in self.layers])


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


class _PrefixLayer(DynamicLayer):
    """The keys and values of one layer of a prefix, which every row sees and none changes."""

    def __init__(self, keys: Tensor, values: Tensor, grows: bool) -> None:
        super().__init__()
        self.keys, self.values, self._grows = keys, values, grows
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of prefix and rows; they are kept, in new tensors, where the cache grows."""
        rows = key_states.shape[0]
        keys = torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2)
        values = torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2)
        if self._grows:
            self.keys, self.values = keys, values
        return keys, values


@torch.inference_mode()
def extend(model: Any, prefix: Prefix, ids: Sequence[int]) -> Prefix:
    """The prefix with more tokens behind it; the one given stays as it was."""
    if not ids:
        return prefix
    cache = prefix.cache(grows=True)
    next_logits(model, cache, torch.tensor([list(ids)]), prefix.length)
    return Prefix(tuple((layer.keys, layer.values) for layer in cache.layers), prefix.length + len(ids))


@torch.inference_mode()
def next_logits(model: Any, cache: Cache, tokens: Tensor, start: int) -> Tensor:
    """Logits after `tokens` (B, L), which stand at position `start` and go into the cache -> (B, V) float32."""
    device, (rows, length) = model.device, tokens.shape
    positions = torch.arange(start, start + length, device=device)[None].expand(rows, -1)
    last = torch.full((rows,), length - 1, device=device)
    with _head_reads_only(model, torch.arange(rows, device=device), last):
        output = model(input_ids=tokens.to(device), position_ids=positions, past_key_values=cache, use_cache=True)
    logits: Tensor = output.logits[0].float()  # (1, B, V) -> (B, V)
    return logits


@contextmanager
def _head_reads_only(model: Any, rows: Tensor, tokens: Tensor) -> Iterator[None]:
    """Give the output layer only the hidden states of the reads, (B, L, D) -> (1, R, D); it is the widest by far."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows, tokens][None], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def read_rows(model: Any, prefix: Prefix, rows: Sequence[Row], wanted: Sequence[int]) -> Tensor:
    """Log-probabilities of the wanted next tokens at every read of every row -> (R, W) float32, row by row."""
    device = model.device
    ids, depth, sees = (values.to(device) for values in _tensors(rows))
    at_row = torch.tensor([number for number, row in enumerate(rows) for _ in row.reads], dtype=torch.long)
    at_token = torch.tensor([token for row in rows for token in row.reads], dtype=torch.long)
    shared = prefix.length
    with _head_reads_only(model, at_row.to(device), at_token.to(device)):
        output = model(
            input_ids=ids, attention_mask=_masks(model, shared, depth, sees), position_ids=depth + shared,
            past_key_values=prefix.cache(grows=False) if shared else None, use_cache=shared > 0,
        )  # fmt: skip
    columns = list(wanted)
    parts = output.logits[0].split(_READS_AT_ONCE)  # (1, R, V) -> (64, V) and so on
    return torch.cat([part.float().log_softmax(dim=1)[:, columns] for part in parts])


def _tensors(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids (B, L), how many tokens of the row are before each (B, L), and who sees whom (B, L, L).

    Padding sees itself, so that nothing is NaN.
    """
    length = max(len(row.ids) for row in rows)
    ids, depth = np.zeros((2, len(rows), length), dtype=np.int64)
    sees = np.tile(np.eye(length, dtype=bool), (len(rows), 1, 1))
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        seen = sees[number]
        main = next((token for token, parent in enumerate(row.parents) if parent != token - 1), len(row.ids))
        seen[:main, :main] = np.tri(main, dtype=bool)
        for token, parent in enumerate(row.parents[main:], main):
            if parent >= 0:
                seen[token] |= seen[parent]
        depth[number] = seen.sum(axis=1) - 1
    return torch.from_numpy(ids), torch.from_numpy(depth), torch.from_numpy(sees)


def _masks(model: Any, shared: int, depth: Tensor, sees: Tensor) -> Tensor | dict[str, Tensor]:
    """Additive masks over prefix and row (B, 1, L, P + L): one, or one for each kind of layer where a model mixes kinds."""
    config = model.config.get_text_config(decoder=True)
    rows, length = depth.shape
    visible = torch.cat([sees.new_ones(rows, length, shared), sees], dim=2)

    def additive(window: int | None) -> Tensor:
        allowed = visible
        if window is not None:
            at = torch.cat([torch.arange(shared, device=depth.device).expand(rows, -1), depth + shared], dim=1)
            allowed = visible & ((depth + shared)[:, :, None] - at[:, None, :] < window)
        mask = torch.zeros(allowed.shape, dtype=model.dtype, device=depth.device)
        return mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)[:, None]

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


def check_reading(model: Any) -> None:
    """Compare reading behind a shared prefix, padded and with a branch, with plain reading of a few tokens.

    Raises:
        UserError: they differ, as for attention that needs positions in another form, or for state-space layers.
    """
    ids = [3 + 7 * place % 50 for place in range(24)]
    row = Row([*ids[12:23], ids[23]], [*range(-1, 10), 4], [10, 11])
    try:
        prefix = extend(model, Prefix(), ids[:12])
        found = read_rows(model, prefix, [Row(ids[12:], list(range(-1, 11)), [11]), row], range(60))
        with torch.inference_mode():
            texts = (ids, ids[:23], [*ids[:17], ids[23]])
            plain = [model(torch.tensor([text], device=model.device)).logits[0, -1] for text in texts]
        expected = torch.stack(plain).float().log_softmax(dim=1)[:, :60]
        difference = float((found - expected).abs().max())
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{_cannot(model)}: {error}") from error
    if not difference < CHECK_TOLERANCE[model.dtype == torch.float32]:
        raise UserError(f"{_cannot(model)}: log-probabilities differ by {difference:.3g}")


def _cannot(model: Any) -> str:
    return f"{type(model).__name__} cannot be read behind a shared prefix, which scoring needs; use another model"
