"""Coefficients of a dictionary in the hidden states of a layer: sparse coding, or transformer factors (Yun et al. 2021).

Shapes: M texts, T tokens, R hidden states of D dimensions, U atoms.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from pipeline.black_boxes.hidden import HiddenStates, on_texts, refuse_other
from pipeline.errors import UserError
from pipeline.subjects.activations import with_float64
from pipeline.subjects.kinds.matrix_file import read_matrix
from pipeline.subjects.text_functions import Pool, pooled

Values = npt.NDArray[np.float64]


def dictionary(
    path: str,
    model: str,
    layer: int,
    key: str | None = None,
    penalty: float = 0.3,
    positive: bool = True,
    steps: int = 200,
    pool: str = "max",
    normalise: bool = True,
    device: str = "auto",
) -> Callable[[list[str]], Values]:
    """f(x) is the coefficient of each atom in the sparse code of x's hidden states, pooled over its tokens.

    The code a of a hidden state h minimises 1/2 || h - a A ||^2 + penalty || a ||_1, over a >= 0 where `positive`.

    Args:
        path: a .safetensors, .npz or .npy file with A, (atoms, dimensions).
        model: as subject.model.
        layer: counted from 0; the residual stream after it is coded.
        key: name of A in the file; not needed where the file holds one array.
        penalty: of the coefficients, in the units of the hidden states.
        positive: coefficients are not negative, as those of Yun et al. 2021 are.
        steps: of FISTA; the same for all texts.
        pool: max, mean or last.
        normalise: divide each atom by its length.
        device: where the model runs.

    Raises:
        UserError: the file or the model is not there, they do not fit together, or a number is out of range.
    """
    refuse_other("pool", pool, ("max", "mean", "last"))
    if penalty < 0 or steps < 1:
        raise UserError(f"penalty = {penalty}, steps = {steps}; expected a penalty of 0 or more and a step at least")
    states = HiddenStates(model, layer, device)
    atoms = torch.from_numpy(read_matrix("dictionary", path, key, states.width, f"layer {layer}", normalise))

    def respond(hidden: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        rows = with_float64(hidden.flatten(0, 1)).double()
        codes = sparse_codes(rows, atoms.to(rows.device), penalty, positive, steps)
        return pooled(codes.reshape(*counted.shape, len(atoms)), counted.to(rows.device), cast(Pool, pool))

    return on_texts(states, len(atoms), respond)


def sparse_codes(
    states: torch.Tensor, atoms: torch.Tensor, penalty: float, positive: bool = True, steps: int = 200
) -> torch.Tensor:
    """(R, U) codes that minimise 1/2 || h - a A ||^2 + penalty || a ||_1, by FISTA (Beck and Teboulle 2009).

    The step is the inverse of the largest eigenvalue of A A^T. After the given number of steps the objective is within
    2 L || a* ||^2 / (steps + 1)^2 of its minimum, where L is that eigenvalue.

    Args:
        states: (R, D) the rows h.
        atoms: (U, D), the matrix A.
        penalty: 0 or more.
        positive: whether a >= 0.
        steps: 1 or more.
    """
    gram = atoms @ atoms.T  # (U, U)
    step = 1.0 / float(torch.linalg.eigvalsh(gram)[-1].clamp_min(1e-30))
    matched = states @ atoms.T  # (R, U)
    codes = ahead = torch.zeros_like(matched)
    momentum = 1.0
    for _ in range(steps):
        moved = ahead - step * (ahead @ gram - matched)
        size = moved if positive else moved.abs()
        following = (size - step * penalty).clamp_min(0.0) * (1.0 if positive else moved.sign())
        grown = (1.0 + (1.0 + 4.0 * momentum**2) ** 0.5) / 2.0
        ahead = following + (momentum - 1.0) / grown * (following - codes)
        codes, momentum = following, grown
    return codes
