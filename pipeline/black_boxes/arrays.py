"""The matrices of ready-made black boxes, read from files."""

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import UserError
from pipeline.subjects.directions import read_matrix

Values = npt.NDArray[np.float64]


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
