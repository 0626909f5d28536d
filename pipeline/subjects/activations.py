"""Where activations come from: whatever can run over a batch of token ids and say what its units do.

Shapes: B sequences of a batch, T tokens, U units of a module, D dimensions of the residual stream.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that have no float64."""


@dataclass(frozen=True)
class ModuleUnits:
    """The units of a module."""

    width: int
    """U, how many there are."""
    signed: bool = True
    """Whether activations can be negative; where they cannot, there is no polarity '-'."""
    sparse: bool = False
    """Whether activations come as SparseActivations."""


@dataclass(frozen=True)
class SparseActivations:
    """The activations of a batch that are not zero, on the device of the model."""

    shape: tuple[int, int, int]
    """(B, T, U)"""
    positions: "torch.Tensor"
    """(N,) int64 positions in the flattened batch B * T, rising."""
    units: "torch.Tensor"
    """(N,) int64 units, rising at one position, none twice."""
    values: "torch.Tensor"
    """(N,) float32 activations."""

    def of(self, units: "torch.Tensor") -> "torch.Tensor":
        """(B, T, K) activations of K distinct units with the zeros among them, differentiable where the values are."""
        batch, tokens, width = self.shape
        column = self.units.new_full((width,), -1)
        column[units] = units.new_tensor(range(len(units)))
        columns = column[self.units]
        kept = columns >= 0
        zeros = self.values.new_zeros((batch * tokens, len(units)))
        return zeros.index_put((self.positions[kept], columns[kept]), self.values[kept]).view(batch, tokens, len(units))


@dataclass(frozen=True)
class TokenBatch:
    """Some sequences, padded on the right with 0."""

    token_ids: npt.NDArray[np.int64]
    """(B, T)"""
    lengths: npt.NDArray[np.int64]
    """(B,) real tokens of each sequence."""
    seq_ids: npt.NDArray[np.int64]
    """(B,) numbers of the sequences in the corpus."""


Activations = Any
"""A torch tensor (B, T, U), or SparseActivations."""
Receive = Callable[[str, Activations], None]
"""Takes the name of a module and its activations on the present batch. What it is given may be reused afterwards: it copies
what it keeps."""


def of_units(activations: Activations, units: Sequence[int]) -> "torch.Tensor":
    """(B, T, K) activations of K distinct units, copied."""
    import torch

    sparse = isinstance(activations, SparseActivations)
    indices = torch.as_tensor(units, device=(activations.values if sparse else activations).device)
    found: torch.Tensor = activations.of(indices) if sparse else activations[..., indices]
    return found


class ActivationSource(Protocol):
    """Something that has units: a model, a function of texts, a folder of activations."""

    @property
    def modules(self) -> Mapping[str, ModuleUnits]:
        """What it has units in, in the order of the run file."""
        ...

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        """Call `receive` once for each module."""
        ...


def with_float64(values: "torch.Tensor") -> "torch.Tensor":
    """The values on their own device, or on the CPU where that has no float64."""
    return values.cpu() if values.device.type in WITHOUT_FLOAT64 else values
