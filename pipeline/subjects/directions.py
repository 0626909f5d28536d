"""Directions: a matrix of vectors from a file, such as probes, steering vectors or principal components.

Shapes: U vectors, D dimensions of what they are projected on.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pipeline.config import Directions
from pipeline.errors import UserError
from pipeline.subjects.architecture import Paths, norm_scale, part, place
from pipeline.subjects.site import Site, UnitVectors
from pipeline.subjects.stream import place_width

SUFFIXES = (".safetensors", ".npz", ".npy")


class Projection:
    """From (B, T, D) to the projections (B, T, U) on the rows of a matrix (U, D)."""

    def __init__(self, vectors: torch.Tensor) -> None:
        self.vectors = vectors

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.vectors.device != tensor.device:
            self.vectors = self.vectors.to(tensor.device)
        return tensor.float() @ self.vectors.T


def directions_site(
    name: str, layer: int, found: Directions, block: nn.Module, config: Any, paths: Paths | None = None
) -> Site:
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
            f"has {width}; give a matrix (vectors, {width})" + _transposed(vectors, width)
        )
    if found.normalise:
        vectors = _normalised(vectors, place_name)
    read: Callable[[torch.Tensor], torch.Tensor] = Projection(vectors)
    weights = functools.partial(_vectors, vectors, found.reads, block, paths)
    return Site(name, module, len(vectors), side, read=read, vectors=weights)


def read_matrix(place_name: str, path: str, key: str | None) -> torch.Tensor:
    """A matrix (U, D) as float32; a single vector is a matrix of one row.

    Args:
        place_name: what is read, for messages.
        key: its name in the file; None where the file holds one.

    Raises:
        UserError: the file or the matrix is not there, or it is not a matrix of finite numbers.
    """
    file = Path(path).expanduser()
    if file.suffix not in SUFFIXES:
        raise UserError(f"{place_name}.path = {path!r} is not one of the files that can be read: {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise UserError(
            f"{place_name}.path = {path!r}: there is no such file; correct the path ({{layer}} is filled in)"
        )
    try:
        held = _numpy_file(file) if file.suffix != ".safetensors" else _safetensors_file(file)
        chosen = _chosen(place_name, path, key, held)
        matrix = held[chosen]()
    except (OSError, ValueError, SafetensorError, EOFError) as error:
        raise UserError(f"{place_name}.path = {path!r} cannot be read ({error}); write the file anew") from error
    matrix = matrix[None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not len(matrix) or not torch.isfinite(matrix).all():
        raise UserError(
            f"{place_name}: {path!r} holds an array of shape {tuple(matrix.shape)}; expected a matrix (vectors, dimensions) "
            "of finite numbers"
        )
    return matrix


def _key(found: Directions, layer: int) -> str | None:
    return None if found.key is None else found.key.replace("{layer}", str(layer))


def _safetensors_file(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """What reads each array of a file, by its key."""

    def read(key: str) -> torch.Tensor:
        with safe_open(file, framework="pt") as opened:
            return opened.get_tensor(key).float()

    with safe_open(file, framework="pt") as opened:
        return {key: functools.partial(read, key) for key in opened.keys()}  # noqa: SIM118 - not a dictionary


def _numpy_file(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    def read(key: str) -> torch.Tensor:
        with np.load(file, allow_pickle=False) as opened:
            return _float32(opened[key])

    if file.suffix == ".npy":
        return {"": lambda: _float32(np.load(file, allow_pickle=False))}
    with np.load(file, allow_pickle=False) as opened:
        return {key: functools.partial(read, key) for key in opened.files}


def _float32(array: np.ndarray[Any, Any]) -> torch.Tensor:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"it holds {array.dtype}, not numbers")
    return torch.from_numpy(array.astype(np.float32))


def _chosen(place_name: str, path: str, key: str | None, held: dict[str, Callable[[], torch.Tensor]]) -> str:
    if key in held:
        return str(key)
    if len(held) == 1 and (key is None or "" in held):
        return next(iter(held))
    wrong = f"there is no {key!r} in {path!r}" if key is not None else f"{path!r} holds {len(held)} arrays"
    shown = ", ".join(sorted(held)[:40]) + (" and others" if len(held) > 40 else "")
    raise UserError(f"{place_name}: {wrong}; set key to one of: {shown}")


def _normalised(vectors: torch.Tensor, place_name: str) -> torch.Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    zero = torch.flatten(lengths == 0).nonzero().flatten().tolist()
    if zero:
        raise UserError(
            f"{place_name}: vector {zero[0]} is zero and has no direction; take it out, or set normalise = false"
        )
    return vectors / lengths


def _transposed(vectors: torch.Tensor, width: int) -> str:
    return "; it seems to be transposed" if len(vectors) == width else ""


def _vectors(vectors: torch.Tensor, reads: str, block: nn.Module, paths: Paths | None) -> UnitVectors:
    """The directions as vectors of the residual stream, as far as they are projected on it."""
    if reads in {"residual", "residual_in"}:
        return UnitVectors(vectors, vectors)
    if reads in {"attn_out", "mlp_out"}:
        return UnitVectors(None, vectors)
    if reads == "mlp_in":
        return UnitVectors(vectors * norm_scale(part(block, "mlp_norm", paths), vectors.shape[1]), None)
    return UnitVectors(None, None)
