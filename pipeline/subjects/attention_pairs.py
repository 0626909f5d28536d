"""What an attention head moves from one position to another.

The write of a head at position `to` is the sum over positions `from` of attention[to, from] * W_O v[from]; the size of a pair
(from, to) is the norm of its part (Kobayashi et al. 2020, Attention is not only a weight, section 3).
Attention and values are taken from transformers' attention interface, which most models call to mix values by attention.

Shapes: B sequences, T tokens, H heads, G heads of keys and values (H is a multiple of G), E dimensions of a head, D of the
residual stream.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.subjects.architecture import matrix
from pipeline.subjects.model_activations import LastSiteReached
from pipeline.subjects.quiet import quiet_transformers
from pipeline.subjects.site import Site

INTERFACE = "neurogloss_pairs"
"""Name of the attention function that is put in for a while."""


@dataclass
class _Taken:
    """What the last attention layer that ran has mixed, and how."""

    attention: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(B, H, T, T): by which share the position of the third axis reads that of the fourth."""
    values: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(B, H, T, E)"""
    mixed: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(B, T, H, E) their product."""
    projected: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    """(B, T, H * E) what the output projection then got."""


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


def head_movements(base_model: Any, site: Site, inputs: dict[str, torch.Tensor]) -> Movements | None:
    """Run a batch and take what the heads of a layer move.

    Args:
        site: of attention heads: hooks the input of the projection from the heads, and its width is H.
        inputs: of the model, such as input_ids and attention_mask.

    Returns:
        None where it cannot be had: the model does not call the attention interface, or changes what the heads have mixed
        before it projects it.
    """
    with torch.inference_mode(), _taking(base_model, site.module) as taken, suppress(LastSiteReached):
        base_model(**inputs, use_cache=False)
    heads = taken.attention.shape[1] if taken.attention.dim() == 4 else 0
    unchanged = taken.mixed.numel() == taken.projected.numel() and torch.allclose(
        taken.mixed.reshape(taken.projected.shape), taken.projected, rtol=1e-3, atol=1e-5
    )
    if heads != site.width or not unchanged:
        return None
    repeated = taken.values.repeat_interleave(heads // taken.values.shape[1], dim=1)
    weight = matrix(site.module).to(repeated.device)
    return Movements(taken.attention.float(), repeated.float(), weight.reshape(len(weight), heads, -1))


@contextmanager
def _taking(base_model: Any, projection: nn.Module) -> Iterator[_Taken]:
    """Keep what attention mixes right before `projection` runs, and end the forward pass there."""
    taken = _Taken()

    def attend(module: nn.Module, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        if eager is None:
            raise LastSiteReached
        mixed, attention = eager(module, query, key, value, *rest, **named)
        taken.mixed, taken.attention, taken.values = mixed, attention, value
        return mixed, attention

    def stop(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        taken.projected = inputs[0]
        raise LastSiteReached

    ALL_ATTENTION_FUNCTIONS.register(INTERFACE, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(INTERFACE, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    before = base_model.config._attn_implementation
    hook = projection.register_forward_pre_hook(stop)
    try:
        with quiet_transformers():
            base_model.set_attn_implementation(INTERFACE)
        yield taken
    finally:
        hook.remove()
        with quiet_transformers():
            base_model.set_attn_implementation(before)


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
