"""From activations of a model to the latents of a sparse coder that are not zero, a chunk of tokens at a time."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F

from pipeline.subjects.activations import SparseActivations

CHUNK = 2**23
"""Pre-activations held at a time: 32 MiB of float32,"""
LEAST_TOKENS = 256
"""or those of this many tokens, as products with fewer rows read the weights too often."""
LAYER_NORM_EPSILON = 1e-5

Normalisation = Literal["none", "layer_norm", "constant_norm_rescale"]
Selection = Literal["threshold", "gated", "topk", "groupmax"]
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Encoder:
    """The half of a sparse coder that gives its latents, as float32 tensors on one device.

    Pre-activations are `(normalised(x) - centre) @ weight + bias`, times `rescale` where it is given.
    """

    weight: torch.Tensor
    """(D, U)"""
    bias: torch.Tensor
    """(U,)"""
    selection: Selection
    """threshold: what lies above `threshold` and above 0 (ReLU, JumpReLU, BatchTopK after training); gated: positive
    magnitudes where the gate is positive; topk: the k largest of a token, if positive; groupmax: the largest of each of k
    equal groups, if positive."""
    threshold: torch.Tensor | None = None
    """(U,) or a scalar, not negative; only for `threshold`."""
    k: int = 0
    gain: torch.Tensor | None = None
    """(U,) factor of the magnitudes over the gate's weights; only for `gated`."""
    magnitude_bias: torch.Tensor | None = None
    """(U,) only for `gated`, whose gate has `bias`."""
    centre: torch.Tensor | None = None
    """(D,) taken off the normalised input."""
    normalisation: Normalisation = "none"
    scale: float = 1.0
    """Factor of the input, before all else."""
    rescale: torch.Tensor | None = None
    """(U,)"""

    def encode(self, x: torch.Tensor) -> SparseActivations:
        """Latents of (B, T, D) activations of any float type; (N, D) ones count as one sequence."""
        width = self.weight.shape[1]
        flat = x.reshape(-1, x.shape[-1])
        step = max(CHUNK // width, LEAST_TOKENS)
        parts = []
        for start in range(0, len(flat), step):
            rows, units, values = self._select(self._prepare(flat[start : start + step].float()))
            parts.append((rows + start, units, values))
        positions, units, values = (torch.cat(column) for column in zip(*parts, strict=True))
        sequences, tokens = (x.shape[0], x.shape[1]) if x.ndim == 3 else (1, len(flat))
        return SparseActivations((sequences, tokens, width), positions, units, values)

    def after(self, gain: torch.Tensor, bias: torch.Tensor) -> "Encoder":
        """The encoder of x * gain + bias, (D,) each, that gives the latents which this one gives of x."""
        assert self.normalisation == "none"
        assert self.centre is None
        shift = self.scale * (bias / gain) @ self.weight
        return replace(self, weight=self.weight / gain[:, None], bias=self.bias - shift)

    def _prepare(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale != 1.0:
            x = x * self.scale
        if self.normalisation == "layer_norm":
            x = x - x.mean(dim=-1, keepdim=True)
            x = x / (x.std(dim=-1, keepdim=True) + LAYER_NORM_EPSILON)
        elif self.normalisation == "constant_norm_rescale":
            x = x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))
        return x if self.centre is None else x - self.centre

    def _select(self, prepared: torch.Tensor) -> Found:
        """Rows, units and values of the latents of (N, D) inputs that are not zero; NaN stays, to be counted."""
        if self.selection == "gated":
            return self._gated(prepared @ self.weight)
        before = torch.addmm(self.bias, prepared, self.weight)  # (N, U)
        if self.rescale is not None:
            before = before * self.rescale
        if self.selection == "threshold":
            assert self.threshold is not None
            return above_threshold(before, self.threshold)
        if self.selection == "topk":
            return largest(before, self.k)
        values, places = before.view(len(before), self.k, -1).max(dim=-1)
        size = before.shape[1] // self.k
        return _positive(values, places + torch.arange(0, before.shape[1], size, device=before.device))

    def _gated(self, projected: torch.Tensor) -> Found:
        """Rows, units and magnitudes where (N, U) projections open the gate (Rajamanoharan et al. 2024)."""
        assert self.gain is not None
        assert self.magnitude_bias is not None
        magnitudes = projected * self.gain + self.magnitude_bias
        rows, units = (~((projected + self.bias <= 0) | (magnitudes <= 0))).nonzero(as_tuple=True)
        return rows, units, magnitudes[rows, units]


def above_threshold(before: torch.Tensor, threshold: torch.Tensor) -> Found:
    """Rows, units and values of the (N, U) pre-activations above thresholds, (U,) or a scalar; NaN is among them."""
    rows, units = (~(before <= threshold)).nonzero(as_tuple=True)
    return rows, units, before[rows, units]


def largest(before: torch.Tensor, k: int) -> Found:
    """Rows, units and values of the k largest (N, U) pre-activations of a row that are positive; NaN counts as the largest."""
    values, units = before.topk(k, dim=-1, sorted=False)
    units, order = units.sort(dim=-1)
    return _positive(values.gather(1, order), units)


def _positive(values: torch.Tensor, units: torch.Tensor) -> Found:
    """What is left of (N, k) selected values and their units after a ReLU."""
    values = F.relu(values)
    rows, places = (values != 0).nonzero(as_tuple=True)
    return rows, units[rows, places], values[rows, places]
