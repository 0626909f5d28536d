"""Dimensions of the residual stream, and of what attention and the MLP add to it."""

import functools
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.subjects.architecture import Paths, inputs, place
from pipeline.subjects.site import Site, UnitVectors


def dimension_site(name: str, kind: str, block: nn.Module, config: Any, paths: Paths | None = None) -> Site:
    """The dimensions of a layer's `residual`, `attn_out` or `mlp_out`, taken as `architecture.place` says.

    Raises:
        UserError: the layer lacks the part.
    """
    module, side = place(block, kind, name, paths)
    width = place_width(block, kind, name, config, paths)
    return Site(name, module, width, side, vectors=functools.partial(dimension_vectors, kind, width))


def dimension_vectors(kind: str, width: int) -> UnitVectors:
    """The unit vectors; what attention or the MLP write reads nothing from the residual stream."""
    return UnitVectors(torch.eye(width) if kind == "residual" else None, torch.eye(width))


def place_width(block: nn.Module, reads: str, name: str, config: Any, paths: Paths | None = None) -> int:
    """Dimensions of the tensor at a hook point of `architecture.place`.

    Raises:
        UserError: the layer lacks the part.
    """
    if reads == "mlp":
        return inputs(place(block, reads, name, paths)[0])
    width = getattr(config.get_text_config(), "hidden_size", None)
    if not isinstance(width, int):
        raise UserError(f"subject.modules: {name!r}: the model's configuration has no hidden_size, which is needed")
    return width
