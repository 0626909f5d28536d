"""The running state of a module on any torch device with float64; nothing leaves the device before the end.

The statistics are those of the numba backend, computed on tensors of a whole batch. Sums within a sequence are added up in
another order, so moments can differ in the last bits of a float64. Everything else is equal for equal activations. The
program waits for the device once for each module and batch, in `torch_top_k`. `triton_sums` is faster and never waits.

Activations may be of any floating type. At most CHUNK of them at a time become float32.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stages.record.backends.contract import DenseRows, TopK, UnitSums
from stages.record.backends.device import DeviceBatch, on_device
from stages.record.backends.torch.torch_top_k import TorchTopK
from stages.record.histogram import BINS, OFFSET, SHIFT
from stages.record.kept_sequences import polarities, uniform_ids
from stages.record.recorded_batch import Batch
from stages.record.token_table import GRID
from stages.settings import Record

CHUNK = 2**24
"""Activations that are worked on together."""
Tensor = torch.Tensor


class DeviceState:
    """What every accumulator on a device holds: statistics of U units, and the uniformly kept sequences."""

    def __init__(self, width: int, covered: int, config: Record, device: torch.device) -> None:
        self.config, self.device = config, device
        self.n_tokens = 0

        def full(value: float, *shape: int, dtype: torch.dtype) -> Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        self.minimum = full(np.inf, width, dtype=torch.float32)
        self.maximum = full(-np.inf, width, dtype=torch.float32)
        self.above = full(0, width, dtype=torch.int64)
        self.nonfinite = full(0, width, dtype=torch.int64)
        self.power_sums = full(0, 4, 2, width, dtype=torch.float64)
        self.histogram = full(0, width, BINS, dtype=torch.int32)
        self.token_sums = full(0, covered, width, dtype=torch.float64)
        self._uniform_ids = frozenset(uniform_ids(config).tolist())
        self._uniform: dict[int, Tensor] = {}
        """(T, U) activations by seq_id, in the type in which they came."""

    def keep_uniform(self, x: Tensor, batch: Batch, counted: Tensor) -> None:
        """Copy the sequences of a (B, T, U) batch that are kept for every unit; counted: (B, T)."""
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self._uniform_ids:
                part = slice(0, int(batch.lengths[b]))
                self._uniform[seq_id] = x[b, part].masked_fill(counted[b, part, None] == 0, torch.nan)

    def unit_sums(self, top: dict[str, TopK]) -> UnitSums:
        names = ("minimum", "maximum", "above", "power_sums", "token_sums", "nonfinite", "histogram")
        found = {name: getattr(self, name).cpu().numpy() for name in names}
        nonfinite, histogram = found.pop("nonfinite"), found.pop("histogram").astype(np.int64)
        return UnitSums(self.n_tokens, nonfinite, histogram=histogram, top=top, **found)

    def uniform(self) -> Mapping[int, DenseRows]:
        return {seq_id: DenseRows(rows.float().cpu().numpy()) for seq_id, rows in self._uniform.items()}


class TorchSums(DeviceState):
    """Accumulator for U units of sequences of at most T tokens with V covered tokens."""

    def __init__(
        self, device: torch.device, width: int, seq_len: int, covered: int, config: Record, signed: bool = True
    ) -> None:
        super().__init__(width, covered, config, device)
        self.top = TorchTopK(width, seq_len, config, polarities(config, signed), device)

    def add(self, activations: Any, batch: Batch) -> None:
        """Add a (B, T, U) tensor."""
        x = activations.detach().to(self.device)
        here = on_device(batch, self.device)
        self.n_tokens += len(batch.places)
        width, size = x.shape[2], max(CHUNK // (x.shape[0] * x.shape[1]), 1)
        peaks = [self._measure(x, slice(u, min(u + size, width)), here) for u in range(0, width, size)]
        if self.top.signs:
            high, places = (torch.cat(parts, dim=2) for parts in zip(*peaks, strict=True))
            self.top.add(x, high, places, here)
        self.keep_uniform(x, batch, here.counted)

    def _measure(self, activations: Tensor, units: slice, here: DeviceBatch) -> tuple[Tensor, Tensor]:
        """Add some units of a (B, T, U) tensor; returns the (P, B, U) largest values in each polarity, and their positions."""
        x = activations[:, :, units].float()
        counted = here.counted.bool()[:, :, None]
        finite = torch.isfinite(x) & counted
        high, low = torch.where(finite, x, -torch.inf), torch.where(finite, x, torch.inf)
        self.nonfinite[units] += (counted & ~finite).sum((0, 1))
        self.above[units] += ((x > self.config.density_threshold) & finite).sum((0, 1))
        self.maximum[units] = torch.maximum(self.maximum[units], high.amax((0, 1)))
        self.minimum[units] = torch.minimum(self.minimum[units], low.amin((0, 1)))
        self._add_powers(torch.where(finite, x, 0).double(), units)
        self._count_bins(x, finite & here.binned.bool()[:, None, None], units)
        rows = x.reshape(-1, x.shape[2])[here.positions].double()
        self.token_sums[:, units].index_add_(0, here.targets, (rows + GRID) - GRID)
        ends = [(high if sign > 0 else -low).max(dim=1) for sign in self.top.signs.values()]
        none = x.new_empty((0, len(x), x.shape[2]))
        return (
            torch.stack([end.values for end in ends]) if ends else none,
            torch.stack([end.indices for end in ends]) if ends else none,
        )

    def _add_powers(self, x: Tensor, units: slice) -> None:
        """Add up the powers of each sequence of a (B, T, U) batch, then sequences and running sums pairwise by two-sum."""
        square = x * x
        new = torch.stack([part.sum(1) for part in (x, square, x * square, square * square)])
        pairs = torch.stack([new, torch.zeros_like(new)], dim=1)  # (4, 2, B, U)
        pairs = torch.cat([pairs, self.power_sums[:, :, None, units]], dim=2)
        while pairs.shape[2] > 1:
            half = pairs.shape[2] // 2
            joined = add_pairs(pairs[:, :, :half], pairs[:, :, half : 2 * half])
            pairs = torch.cat([joined, pairs[:, :, 2 * half :]], dim=2)
        self.power_sums[:, :, units] = pairs[:, :, 0]

    def _count_bins(self, x: Tensor, counted: Tensor, units: slice) -> None:
        """Count (B, T, U) activations in the histograms; see `histogram` for the bins."""
        bits = x.contiguous().view(torch.int32)
        magnitude = (((bits & 0x7FFFFFFF) >> SHIFT) - OFFSET).clamp(0, BINS // 2 - 1)
        bins = BINS // 2 + (magnitude ^ (bits >> 31)).long()
        bins += torch.arange(units.start, units.stop, device=self.device) * BINS
        self.histogram.view(-1).scatter_add_(0, bins.flatten(), counted.flatten().int())

    def sums(self) -> UnitSums:
        return self.unit_sums(self.top.sums())


def add_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Sum of two (4, 2, ...) tensors of pairs, as in `moments.add`."""
    high, low = two_sum(a[:, 0], b[:, 0])
    return torch.stack(two_sum(high, low + (a[:, 1] + b[:, 1])), dim=1)


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rounded sum and what rounding left out."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)
