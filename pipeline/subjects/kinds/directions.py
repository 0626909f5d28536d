"""Directions: a matrix of vectors from a file, such as probes, steering vectors or principal components.

Shapes: U vectors, D dimensions of what they are projected on.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.config import Directions
from pipeline.errors import UserError
from pipeline.subjects.architecture import Paths, norm_scale, part, place, place_width
from pipeline.subjects.hook_points import HookPoint, UnitVectors
from pipeline.subjects.kinds.matrix_file import normalised, read_matrix, transposed


class Projection:
    """From (B, T, D) to the projections (B, T, U) on the rows of a matrix (U, D)."""

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors = vectors

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.vectors.device != tensor.device:
            self.vectors = self.vectors.to(tensor.device)
        return tensor.float() @ self.vectors.T


def dimension_hook_point(name: str, kind: str, block: nn.Module, config: Any, paths: Paths | None = None) -> HookPoint:
    """The dimensions of a layer's `residual`, `attn_out` or `mlp_out`, taken as `architecture.place` says.

    Raises:
        UserError: the layer lacks the part.
    """
    module, side = place(block, kind, name, paths)
    width = place_width(block, kind, name, config, paths)
    return HookPoint(name, module, width, side, vectors=functools.partial(dimension_vectors, kind, width))


def dimension_vectors(kind: str, width: int) -> UnitVectors:
    """The unit vectors; what attention or the MLP write reads nothing from the residual stream."""
    return UnitVectors(torch.eye(width) if kind == "residual" else None, torch.eye(width))


def directions_hook_point(
    name: str, layer: int, found: Directions, block: nn.Module, config: Any, paths: Paths | None = None
) -> HookPoint:
    """The directions of a layer, as the run file describes them.

    Raises:
        UserError: there is no such file or matrix, or its vectors are not as long as what they are projected on.
    """
    module, side = place(block, found.reads, name, paths)
    width = place_width(block, found.reads, name, config, paths)
    place_name = f"subject.directions.{name.partition(':')[2]}"
    vectors = read_matrix(place_name, found.path.replace("{layer}", str(layer)), _key(found, layer))
    if vectors.shape[1] != width:
        raise UserError(
            f"{place_name}: the vectors in {found.path!r} have {vectors.shape[1]} dimensions, but {found.reads} of layer {layer} "
            f"has {width}; give a matrix (vectors, {width})" + transposed(vectors, width)
        )
    if found.normalise:
        vectors = normalised(vectors, place_name)
    read: Callable[[torch.Tensor], torch.Tensor] = Projection(vectors)
    weights = functools.partial(_vectors, vectors, found.reads, block, paths)
    return HookPoint(name, module, len(vectors), side, read=read, vectors=weights)


def _key(found: Directions, layer: int) -> str | None:
    return None if found.key is None else found.key.replace("{layer}", str(layer))


def _vectors(vectors: torch.Tensor, reads: str, block: nn.Module, paths: Paths | None) -> UnitVectors:
    """The directions as vectors of the residual stream, as far as they are projected on it."""
    if reads in {"residual", "residual_in"}:
        return UnitVectors(vectors, vectors)
    if reads in {"attn_out", "mlp_out"}:
        return UnitVectors(None, vectors)
    if reads == "mlp_in":
        return UnitVectors(vectors * norm_scale(part(block, "mlp_norm", paths), vectors.shape[1]), None)
    return UnitVectors(None, None)
