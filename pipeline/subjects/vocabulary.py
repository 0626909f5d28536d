"""A model's tokens as vectors of its residual stream: what a unit writes favours some of them, what it reads answers to some.

Shapes: V tokens, U units, D dimensions of the residual stream.
"""

import re
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import nn

from pipeline.subjects.sites import Site

_PARENTS = ("", "decoder.", "language_model.", "model.", "text_model.")
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")
MLP_NORMS = (
    "pre_feedforward_layernorm",  # Gemma 2 and 3, whose post_attention_layernorm comes before the residual stream
    "ln_mlp",
    "post_attention_layernorm",
    "ln_2",
    "norm_2",
    "final_layer_norm",
    "input_layernorm",  # attention and MLP in parallel, with one norm: Phi, Falcon
    "ln_1",
)
"""What normalises the input of a layer's MLP, the most specific name first."""


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
        at_head = vectors.to(self.weight.device, self.weight.dtype)
        size = at_head.square().mean(dim=-1, keepdim=True).sqrt()
        scaled = at_head / torch.where(size > 0, size, 1)
        if self.norm is None:
            return scaled
        nothing: torch.Tensor = self.norm(torch.zeros_like(scaled[:1]))
        normed: torch.Tensor = self.norm(scaled)
        return normed - nothing


def find_unembedding(model: Any, dimensions: int) -> Unembedding | None:
    """The head of a transformers model; None where it has none that multiplies the normed residual stream.

    Encoders have a head with layers of its own, and some models project to another number of dimensions first: what a
    unit writes is then not read off directly.

    Args:
        model: a causal language model with its head, or a model without one.
        dimensions: D.
    """
    head = model.get_output_embeddings()
    direct = any(child is head for child in model.children())
    if not isinstance(head, nn.Linear) or not direct or head.in_features != dimensions:
        return None
    return Unembedding(head.weight, find_final_norm(model.base_model))


def find_final_norm(base_model: nn.Module) -> nn.Module | None:
    """The norm between the last layer and the head."""
    modules = dict(base_model.named_modules())
    paths = (parent + name for parent, name in product(_PARENTS, _FINAL_NORMS))
    return next((modules[path] for path in paths if path in modules), None)


def input_side(base_model: Any, site: Site, rows: torch.Tensor) -> torch.Tensor:
    """Rows (V, D) of the embedding as the units of a site meet them: through the norm of their MLP where it is known."""
    norm = mlp_norm(base_model, site)
    if norm is None:
        return rows
    weight = next(norm.parameters(), rows)
    normed: torch.Tensor = norm(rows.to(weight.device, weight.dtype))
    return normed


def mlp_norm(base_model: nn.Module, site: Site) -> nn.Module | None:
    """The norm in front of the MLP that holds the neurons of a site; None for other kinds of unit."""
    path = next((name for name, module in base_model.named_modules() if module is site.module), "")
    layer = re.match(r".*?\.\d+(?=\.)", path)
    if layer is None or not re.fullmatch(r"layers\.\d+\.mlp", site.name):
        return None
    block = base_model.get_submodule(layer[0])
    if hasattr(block, "post_feedforward_layernorm") and not hasattr(block, "pre_feedforward_layernorm"):
        return None  # OLMo 2 norms what the parts of a layer write, not what they read
    found = (getattr(block, name, None) for name in MLP_NORMS)
    return next((norm for norm in found if isinstance(norm, nn.Module)), None)
