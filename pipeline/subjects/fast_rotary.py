"""Rotary position embeddings (Su et al. 2021) in one pass over queries and keys, where torch makes eight.

Models of transformers call a function `apply_rotary_pos_emb` of their own file. It is known where a trial on random input agrees with
it to float32 rounding.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import nn

from pipeline.threads import share_out

NAME = "apply_rotary_pos_emb"
ROUNDING = 1e-6
"""Largest difference from the file's own function, over the largest output."""

Floats = npt.NDArray[np.float32]
Rotary = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def rotate_rows(rows: Floats, cos: Floats, sin: Floats, out: Floats, first: int, last: int) -> None:
    """Write x cos + (-x[half:], x[:half]) sin of each head of the rows first..last into `out`.

    Args:
        rows, out: (N, heads, D)
        cos, sin: (M, D), of which the n-th row of N takes row n modulo M.
    """
    half = rows.shape[2] // 2
    for n in range(first, last):
        c, s = cos[n % cos.shape[0]], sin[n % cos.shape[0]]
        for h in range(rows.shape[1]):
            x, y = rows[n, h], out[n, h]
            for i in range(half):
                y[i] = x[i] * c[i] - x[half + i] * s[i]
                y[half + i] = x[half + i] * c[half + i] + x[i] * s[half + i]


@contextmanager
def fast_rotary(base_model: nn.Module) -> Iterator[int]:
    """Let the known rotary embeddings of float32 models on a CPU be computed in one pass; gives how many files have them."""
    files = {sys.modules.get(type(part).__module__) for part in base_model.modules()}
    stock = {file: function for file in files if (function := _known(file)) is not None}
    try:
        for file, function in stock.items():
            setattr(file, NAME, _faster(function))
        yield len(stock)
    finally:
        for file, function in stock.items():
            setattr(file, NAME, function)


def _known(file: ModuleType | None) -> Rotary | None:
    """The file's own function, if `rotate` gives the same."""
    found = getattr(file, NAME, None)
    if found is None:
        return None
    function: Rotary = getattr(found, "stock", found)  # another thread may be within `fast_rotary`
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, heads, 8, generator=generator).transpose(1, 2) for heads in (4, 2))
    cos, sin = (torch.randn(2, 3, 8, generator=generator) for _ in range(2))
    with torch.inference_mode():
        try:
            expected: Any = function(query, key, cos, sin)
        except (RuntimeError, TypeError):  # it takes something else
            return None
        if not isinstance(expected, tuple) or [part.shape for part in expected] != [query.shape, key.shape]:
            return None
        ours = rotate(query, cos, sin), rotate(key, cos, sin)
    agree = all((a - b).abs().max() <= ROUNDING * b.abs().max() for a, b in zip(ours, expected, strict=True))
    return function if agree else None


def _faster(stock: Rotary) -> Rotary:
    @wraps(stock)
    def rotary(*inputs: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if named or len(inputs) != 4 or not all(map(_plain, inputs)):
            return stock(*inputs, **named)
        query, key, cos, sin = inputs
        if not _fits(query, cos, sin) or not _fits(key, cos, sin):
            return stock(*inputs)
        return rotate(query, cos, sin), rotate(key, cos, sin)

    rotary.stock = stock  # type: ignore[attr-defined]
    return rotary


def _plain(tensor: Any) -> bool:
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not (torch.is_grad_enabled() and tensor.requires_grad)
    )


def _fits(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> bool:
    """Whether the shapes are those that `rotate` takes."""
    if states.ndim != 4 or cos.shape != sin.shape:
        return False
    batch, _, tokens, width = states.shape
    return tuple(cos.shape) in ((1, tokens, width), (batch, tokens, width))


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embeddings of (B, heads, T, D) queries or keys; cos and sin: (1, T, D) or (B, T, D)."""
    inputs = states.transpose(1, 2).contiguous()
    found = torch.empty_like(inputs)
    rows, out = (tensor.flatten(0, 1).numpy() for tensor in (inputs, found))
    angles = [tensor.flatten(0, 1).contiguous().numpy() for tensor in (cos, sin)]
    share_out((len(rows), lambda first, last: rotate_rows(rows, *angles, out, first, last)))
    return found.transpose(1, 2)
