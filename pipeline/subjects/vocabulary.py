"""A model's tokens as vectors of its residual stream: what a unit writes favours some of them, what it reads answers to some.

Shapes: V tokens, U units, D dimensions of the residual stream.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import torch
from torch import nn

from pipeline.subjects.activation_sources import HookPoint
from pipeline.subjects.architecture import norm_scale

_PARENTS = ("", "decoder.", "language_model.", "model.", "text_model.")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")


@dataclass(frozen=True)
class Unembedding:
    """The head that predicts tokens."""

    weight: torch.Tensor
    """(V, D)"""
    norm: nn.Module | None
    """The norm at the end of the layers; None where there is none."""

    def project(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (U, D) as what the head multiplies: unembed(final norm(vector)) is `project(vectors) @ weight.T`.

        The vectors are brought to length sqrt(D) first, since the norm of a whole residual stream takes the scale out. What a
        LayerNorm adds to every vector alike, its bias, is left out, so that the opposite vector gives the opposite.
        A vector of zeros gives zeros.
        """
        size = vectors.square().mean(dim=-1, keepdim=True).sqrt()
        scaled = vectors / torch.where(size > 0, size, 1)
        normed = scaled if self.norm is None else _without_bias(self.norm, scaled)
        return normed.to(self.weight.device, self.weight.dtype)


def find_unembedding(model: Any, dimensions: int) -> Unembedding | None:
    """The head of a transformers model; None where it has none that multiplies the normed residual stream.

    Encoders have a head with layers of its own, and some models project to another number of dimensions first: what a
    unit writes is then not read off directly.

    Args:
        model: a language model with its head, or a model without one.
        dimensions: D.
    """
    head = model.get_output_embeddings()
    others = (child for child in model.children() if child is not head and child is not model.base_model)
    if not isinstance(head, nn.Linear) or head.in_features != dimensions or any(_parameters(other) for other in others):
        return None
    return Unembedding(_rows(head), find_final_norm(model.base_model))


def find_final_norm(base_model: nn.Module) -> nn.Module | None:
    """The norm between the last layer and the head."""
    modules = dict(base_model.named_modules())
    paths = (parent + name for parent, name in product(_PARENTS, _FINAL_NORMS))
    return next((modules[path] for path in paths if path in modules), None)


def embedding_rows(model: Any, hook_point: HookPoint) -> torch.Tensor:
    """(V, D) the embedding as the units of a hook point meet it: normalised where they read what a norm gives.

    The weight of that norm is left out, as the vectors that units read (`UnitVectors.reads`) have it already.
    """
    rows = _rows(model.get_input_embeddings())
    if hook_point.norm is None:
        return rows
    normed = _without_bias(hook_point.norm, rows)
    scale = norm_scale(hook_point.norm, rows.shape[1]).to(normed.device)
    return torch.where(scale == 0, 0, normed / torch.where(scale == 0, 1, scale))


def _without_bias(norm: nn.Module, vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (N, D) through a norm, less what it makes of zeros."""
    weight = next(norm.parameters(), vectors)
    if weight.device.type != "meta":  # else accelerate fetches the weight and moves what it is applied to
        vectors = vectors.to(weight.device, weight.dtype)
    with torch.no_grad():
        return cast(torch.Tensor, norm(vectors) - norm(torch.zeros_like(vectors[:1])))


def _rows(layer: Any) -> torch.Tensor:
    """The weight (V, D) of an embedding or a head where it is, or on the CPU where accelerate keeps it elsewhere."""
    weight: torch.Tensor = layer.weight
    if weight.device.type != "meta":
        return weight.detach()
    from accelerate.utils import align_module_device

    with align_module_device(layer):
        return cast(torch.Tensor, layer.weight).detach().cpu().clone()


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
