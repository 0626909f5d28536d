"""Attention heads: what they write to the residual stream, and what they move from one position to another.

The activation of a head at a token is the norm of what it writes there. That write, at position `to`, is the sum over positions `from`
of attention[to, from] * W_O v[from]; the size of a pair (from, to) is the norm of its part (Kobayashi et al. 2020, Attention is not
only a weight, section 3). Attention and values are those of the last matrix product, or of torch's attention function, before the
projection from the heads, whatever the model's code is like; that their product is what is projected is checked.

Shapes: B sequences, T tokens, H heads, G heads of keys and values (H is a multiple of G), E dimensions of a head, D of the residual
stream.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from pipeline.errors import UserError
from pipeline.subjects.activation_sources import HookPoint, LastHookPointReached
from pipeline.subjects.activations import with_float64
from pipeline.subjects.architecture import Layer, inputs, matrix

SEEN = ("eager", "sdpa")
"""Implementations of attention by functions of torch."""
PRODUCTS = {torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__}
"""Functions that mix values by attention."""


class HeadWrites:
    """From the heads' outputs z (B, T, H * E) to || W_O[h] z_h || (B, T, H).

    The block W_O[h] (D, E) is written as Q R with Q of orthonormal columns, so that the norm is || R z_h ||: E * E products
    instead of D * E, as with the Gram matrix R^T R, and without its loss of half the digits. The projection's bias belongs to no
    head and is left out; so is the norm that Gemma 2 and 3 put behind the sum of the heads.
    """

    def __init__(self, projection: nn.Module, heads: int) -> None:
        self.projection = projection
        self.heads = heads
        self._triangles: torch.Tensor | None = None

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """(B, T, H * E) to (B, T, H) float32."""
        if self._triangles is None or self._triangles.device != z.device:
            weight = with_float64(matrix(self.projection)).double()  # (D, H * E)
            blocks = weight.reshape(len(weight), self.heads, -1).transpose(0, 1)  # (H, D, E)
            triangles = torch.linalg.qr(blocks, mode="r").R.float().mT.contiguous()  # (H, E, min(E, D))
            self._triangles = triangles.to(z.device)
        split = z.float().reshape(-1, self.heads, z.shape[-1] // self.heads)  # (B * T, H, E)
        written = torch.bmm(split.transpose(0, 1), self._triangles)  # (H, B * T, min(E, D))
        return torch.linalg.vector_norm(written, dim=-1).T.reshape(*z.shape[:-1], self.heads)


def hook_point(layer: Layer, _: None = None) -> HookPoint:
    """The heads of a layer's attention.

    Raises:
        UserError: the layer has no attention, or its width is not a multiple of the number of heads.
    """
    projection = layer.needed("o_proj")
    heads = getattr(layer.config.get_text_config(), "num_attention_heads", None)
    if not isinstance(heads, int) or inputs(projection) % heads:
        raise UserError(
            f"subject.modules: the heads of {layer.module!r} cannot be told apart: num_attention_heads = {heads!r} does not divide "
            f"the {inputs(projection)} inputs of the projection behind them; record {layer.module}_out, or give another "
            "subject.paths.o_proj"
        )
    return HookPoint(layer.module, projection, heads, read=HeadWrites(projection, heads), signed=False)


class _LastProduct(TorchFunctionMode):
    """Keeps the last matrix product, as left factor, right factor and result; that of attention and values is one."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: tuple[torch.Tensor, ...] = ()
        self.projected = torch.empty(0)
        """(B, T, H * E) what the output projection then got."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in PRODUCTS and len(args) == 2:
            self.kept = (*args, result)
        elif func is scaled_dot_product_attention:
            self.kept = (attention_shares(*args[:2], *args[3:], **kwargs), args[2], result)
        return result


def attention_shares(query: torch.Tensor, key: torch.Tensor, *mask: Any, **settings: Any) -> torch.Tensor:
    """(B, H, T, T) by which share each position reads each: what torch's attention makes of unit vectors as values."""
    values = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand(*key.shape[:-1], -1)
    return scaled_dot_product_attention(query, key, values, *mask, **settings).nan_to_num()


@dataclass(frozen=True)
class Movements:
    """What the heads of a layer move, in a batch."""

    attention: torch.Tensor
    """(B, H, T, T): [b, h, to, from]"""
    values: torch.Tensor
    """(B, H, T, E)"""
    output: torch.Tensor
    """(D, H, E): W_O by head."""

    def pairs(self, sequence: int, head: int) -> torch.Tensor:
        """(T, T) size of what `head` moves, [to, from], in the units of the residual stream."""
        written = self.values[sequence, head] @ self.output[:, head].T  # (T, E), (E, D) -> (T, D)
        return self.attention[sequence, head] * written.norm(dim=-1)


def head_movements(base_model: Any, heads_at: HookPoint, inputs: dict[str, torch.Tensor]) -> Movements | None:
    """Run a batch and take what the heads of a layer move.

    Args:
        heads_at: of attention heads: hooks the input of the projection from the heads, and its width is H.
        inputs: of the model, such as input_ids and attention_mask.

    Returns:
        None where it cannot be had: the model does not multiply values by attention right before it projects them.
    """
    with torch.inference_mode(), _taking(base_model, heads_at.module) as taken, suppress(LastHookPointReached):
        base_model(**inputs, use_cache=False)
    heads, (sequences, tokens) = heads_at.width, taken.projected.shape[:2]
    if not taken.kept or taken.kept[0].numel() != sequences * heads * tokens * tokens:
        return None
    attention, values, mixed = (factor.reshape(sequences, -1, tokens, factor.shape[-1]) for factor in taken.kept)
    merged = mixed.transpose(1, 2).flatten(2)  # (B, H, T, E) -> (B, T, H * E)
    projected = taken.projected.reshape(sequences, tokens, -1)
    if merged.shape != projected.shape or not torch.allclose(merged, projected, rtol=1e-3, atol=1e-5):
        return None
    repeated = values.repeat_interleave(heads // values.shape[1], dim=1)
    weight = matrix(heads_at.module).to(repeated.device)
    return Movements(attention.float(), repeated.float(), weight.reshape(len(weight), heads, -1))


@contextmanager
def _taking(base_model: Any, projection: nn.Module) -> Iterator[_LastProduct]:
    """Keep what is multiplied right before `projection` runs, and end the forward pass there."""

    def stop(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        taken.projected = inputs[0]
        raise LastHookPointReached

    before = base_model.config._attn_implementation
    hook = projection.register_forward_pre_hook(stop)
    try:
        if before not in SEEN:
            base_model.config._attn_implementation = "eager"
        with _LastProduct() as taken:
            yield taken
    finally:
        hook.remove()
        base_model.config._attn_implementation = before


def strongest_pairs(sizes: torch.Tensor, counted: torch.Tensor, count: int) -> list[tuple[int, int, float]]:
    """The largest pairs as (from, to, size), the largest first, ties in the order of `to` and `from`; none of size 0.

    Args:
        sizes: (T, T) [to, from], of which the first len(counted) positions are meant.
        counted: (T,) which positions count; pairs with another one are left out.
    """
    length = len(counted)
    within = sizes[:length, :length] * (counted[:, None] & counted[None, :])
    order = within.flatten().sort(descending=True, stable=True)
    found = zip(order.indices[:count].tolist(), order.values[:count].tolist(), strict=True)
    return [(place % length, place // length, size) for place, size in found if size > 0]
