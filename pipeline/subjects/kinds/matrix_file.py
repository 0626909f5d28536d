"""Matrices from .safetensors, .npz and .npy files: directions, dictionaries, weights of black boxes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from pipeline.errors import UserError

SUFFIXES = (".safetensors", ".npz", ".npy")
SHOWN_KEYS = 40

Values = npt.NDArray[np.float64]


def read_matrix(place: str, path: str, key: str | None, width: int, of_what: str, normalise: bool = False) -> Values:
    """A matrix (U, D); a single vector is a matrix of one row.

    Args:
        place: the setting that names the file, for messages.
        key: its name in the file; None where the file holds one.
        width: D.
        of_what: what has D dimensions, for messages.
        normalise: divide each row by its length.

    Raises:
        UserError: the file or the matrix is not there, it is not a matrix of finite numbers, or it has other dimensions.
    """
    matrix = np.atleast_2d(_read(place, path, key))
    if matrix.ndim != 2 or not len(matrix) or not np.isfinite(matrix).all():
        raise UserError(
            f"{place}: {path!r} holds an array of shape {matrix.shape}; expected a matrix (vectors, dimensions) of finite numbers"
        )
    if matrix.shape[1] != width:
        turned = "; it seems to be transposed" if len(matrix) == width else ""
        raise UserError(
            f"{place}: the vectors in {path!r} have {matrix.shape[1]} dimensions, but {of_what} has {width}; "
            f"give a matrix (vectors, {width}){turned}"
        )
    if not normalise:
        return matrix
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not lengths.all():
        raise UserError(
            f"{place}: vector {int(np.argmin(lengths))} is zero and has no direction; take it out of {path!r}, "
            "or set normalise = false"
        )
    normalised: Values = matrix / lengths
    return normalised


def read_numbers(place: str, path: str, key: str | None, count: int) -> Values:
    """(U,) numbers of a file, one for each of U = `count`; 0 where no key is given.

    Raises:
        UserError: they are not there, or are not U finite numbers.
    """
    if key is None:
        return np.zeros(count)
    numbers = _read(place, path, key).flatten()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UserError(f"{place}: {key!r} in {path!r} holds {len(numbers)} numbers; expected {count} finite ones")
    return numbers


def _read(place: str, path: str, key: str | None) -> Values:
    """An array of a file."""
    file = Path(path).expanduser()
    if file.suffix not in SUFFIXES:
        raise UserError(f"{place}.path = {path!r} is not one of the files that can be read: {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise UserError(f"{place}.path = {path!r}: there is no such file; correct the path ({{layer}} is filled in)")
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                found: Values = opened.get_tensor(_chosen(place, path, key, list(opened.keys()))).double().numpy()
                return found
        held = np.load(file, allow_pickle=False)
        array = held if file.suffix == ".npy" else held[_chosen(place, path, key, list(held))]
        if array.dtype.kind not in "fiu":
            raise ValueError(f"it holds {array.dtype}, not numbers")
    except (OSError, ValueError, SafetensorError, EOFError) as error:
        raise UserError(f"{place}.path = {path!r} cannot be read ({error}); write the file anew") from error
    numbers: Values = array.astype(np.float64)
    return numbers


def _chosen(place: str, path: str, key: str | None, names: Sequence[str]) -> str:
    """The name of the array that is meant."""
    if key in names:
        return str(key)
    if key is None and len(names) == 1:
        return names[0]
    wrong = f"there is no {key!r} in {path!r}" if key is not None else f"{path!r} holds {len(names)} arrays"
    shown = ", ".join(sorted(names)[:SHOWN_KEYS]) + (" and others" if len(names) > SHOWN_KEYS else "")
    raise UserError(f"{place}: {wrong}; set key to one of: {shown}")
