"""Matrices and vectors from .safetensors, .npz and .npy files: directions, dictionaries, weights of black boxes."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

from pipeline.errors import UserError

SUFFIXES = (".safetensors", ".npz", ".npy")

Values = npt.NDArray[np.float64]


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


def matrix_for(place: str, path: str, key: str | None, width: int, of_what: str, normalise: bool = False) -> Values:
    """A matrix (U, D) in float64.

    Args:
        place: what reads it, for messages.
        key: its name in the file; None where the file holds one.
        width: D.
        of_what: what has D dimensions, for messages.
        normalise: divide each row by its length.

    Raises:
        UserError: it is not there, or has other dimensions.
    """
    matrix: Values = read_matrix(place, path, key).numpy().astype(np.float64)
    if matrix.shape[1] != width:
        turned = "; it seems to be transposed" if len(matrix) == width else ""
        raise UserError(
            f"{place}: the matrix in {path!r} has shape {matrix.shape}, but {of_what} has {width} dimensions; give a matrix "
            f"(units, {width}){turned}"
        )
    if normalise:
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        if not lengths.all():
            raise UserError(
                f"{place}: row {int(np.argmin(lengths))} in {path!r} is zero and has no direction; take it out"
            )
        matrix = matrix / lengths
    return matrix


def bias_of(place: str, path: str, key: str | None, units: int) -> Values:
    """(U,) numbers of a file, one for each of U; 0 where no key is given.

    Raises:
        UserError: they are not there, or are not U numbers.
    """
    if key is None:
        return np.zeros(units)
    found: torch.Tensor = read_matrix(place, path, key).flatten()
    if len(found) != units:
        raise UserError(f"{place}: {key!r} in {path!r} holds {len(found)} numbers; expected {units}")
    bias: Values = found.numpy().astype(np.float64)
    return bias


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


def normalised(vectors: torch.Tensor, place_name: str) -> torch.Tensor:
    lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    zero = torch.flatten(lengths == 0).nonzero().flatten().tolist()
    if zero:
        raise UserError(
            f"{place_name}: vector {zero[0]} is zero and has no direction; take it out, or set normalise = false"
        )
    return vectors / lengths


def transposed(vectors: torch.Tensor, width: int) -> str:
    return "; it seems to be transposed" if len(vectors) == width else ""
