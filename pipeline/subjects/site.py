"""What a place in a model that has units is.

Shapes: B sequences, T tokens, U units, D dimensions of the residual stream.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass(frozen=True)
class UnitVectors:
    """What the weights of a module say of its U units, in D dimensions of the residual stream; None where they say nothing."""

    reads: torch.Tensor | None
    """(U, D) a unit's activation grows with the projection of its normalised input on this vector."""
    writes: torch.Tensor | None
    """(U, D) what a unit adds to the residual stream for each unit of activation."""


@dataclass(frozen=True)
class Site:
    """A place in a model that has units."""

    name: str
    """As in the run file: `layers.3.mlp`."""
    module: nn.Module
    """The torch module to hook."""
    width: int
    """U, the number of units."""
    side: Literal["input", "output"] = "input"
    """Whether its first positional input is meant, or its output (the first, where there are several): (B, T, ...)."""
    read: Callable[[torch.Tensor], Any] | None = None
    """From that tensor to activations (B, T, U), or to SparseActivations; None where it holds them already."""
    signed: bool = True
    """Whether activations can be negative."""
    sparse: bool = False
    """Whether `read` gives SparseActivations."""
    vectors: Callable[[], UnitVectors] | None = None
    """The vectors of its units, where the weights have any."""
