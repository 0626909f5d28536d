"""Directions in what a layer holds: the dimensions themselves, or vectors from a file, such as probes or principal components.

Shapes: U vectors, D dimensions of what they are projected on.
"""

import functools

import torch

from pipeline.config import Directions
from pipeline.subjects.activation_sources import HookPoint, UnitVectors
from pipeline.subjects.architecture import Layer, norm_scale
from pipeline.subjects.kinds.matrix_file import read_matrix


class Projection:
    """From (B, T, D) to the projections (B, T, U) on the rows of a matrix (U, D)."""

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors = vectors

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.vectors.device != tensor.device:
            self.vectors = self.vectors.to(tensor.device)
        return tensor.float() @ self.vectors.T


def hook_point(layer: Layer, entry: Directions | None = None) -> HookPoint:
    """The dimensions of a layer's `residual`, `attn_out` or `mlp_out`, or the directions that the run file describes.

    Raises:
        UserError: the layer lacks the part, there is no such file or matrix, or its vectors are not as long as what they are
            projected on.
    """
    if entry is None:
        return _dimensions(layer, layer.module.rpartition(".")[2])
    place = f"subject.directions.{layer.module.partition(':')[2]}"
    path = entry.path.replace("{layer}", str(layer.number))
    key = None if entry.key is None else entry.key.replace("{layer}", str(layer.number))
    what = f"{entry.reads} of layer {layer.number}"
    matrix = read_matrix(place, path, key, layer.width(entry.reads), what, entry.normalise)
    vectors = torch.from_numpy(matrix).float()
    module, side = layer.place(entry.reads)
    return HookPoint(
        layer.module,
        module,
        len(vectors),
        side,
        read=Projection(vectors),
        vectors=functools.partial(_vectors, layer, vectors, entry.reads),
        norm=layer.norm_before(entry.reads),
    )


def _dimensions(layer: Layer, reads: str) -> HookPoint:
    module, side = layer.place(reads)
    width = layer.width(reads)
    return HookPoint(layer.module, module, width, side, vectors=lambda: _vectors(layer, torch.eye(width), reads))


def _vectors(layer: Layer, vectors: torch.Tensor, reads: str) -> UnitVectors:
    """The directions as vectors of the residual stream, as far as they are projected on it."""
    match reads:
        case "residual" | "residual_in":
            return UnitVectors(vectors, vectors)
        case "attn_out" | "mlp_out":
            return UnitVectors(None, vectors)
        case "mlp_in":
            return UnitVectors(vectors * norm_scale(layer.part("mlp_norm"), vectors.shape[1]), None)
    return UnitVectors(None, None)
