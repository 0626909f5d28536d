"""The running state of a module on any torch device; nothing leaves the device before the end.

The same statistics as numba_sums, by other means: whole-batch tensors, and exemplars by stable sorts. Sums within a
sequence are added up in another order, so the moments can differ from those of a CPU in the last bits of a float64;
everything else is equal for equal activations.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pipeline.config import Record
from pipeline.kept import polarities, uniform_ids
from stages.record.histogram import BINS, OFFSET, SHIFT
from stages.record.sums import Batch, DenseRows, TopSums, UnitSums
from stages.record.tokens import GRID_BITS
from stages.record.torch_winners import TorchTop

GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
Tensor = torch.Tensor


class TorchSums:
    """Accumulator for U units of sequences of at most T tokens with V covered tokens; the device needs float64."""

    def __init__(
        self, width: int, seq_len: int, covered: int, config: Record, signed: bool, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.n_tokens = 0

        def full(value: float, *shape: int, dtype: torch.dtype) -> Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        self.minimum = full(np.inf, width, dtype=torch.float32)
        self.maximum = full(-np.inf, width, dtype=torch.float32)
        self.above = full(0, width, dtype=torch.int64)
        self.nonfinite = full(0, width, dtype=torch.int64)
        self.power_sums = full(0, 4, 2, width, dtype=torch.float64)
        self.histogram = full(0, width * BINS, dtype=torch.int64)
        self.top = {
            polarity: TorchTop(width, seq_len, config, 1 if polarity == "+" else -1, device)
            for polarity in polarities(config, signed)
        }
        self.token_sums = full(0, covered, width, dtype=torch.float64)
        self.uniform_ids = frozenset(uniform_ids(config).tolist())
        self.kept: dict[int, Tensor] = {}

    def add(self, activations: Any, batch: Batch) -> None:
        """Take a (B, T, U) tensor in."""
        x = activations.detach().to(self.device, torch.float32)
        counted = self._put(batch.counted)[:, :, None]
        finite = torch.isfinite(x) & counted
        self.n_tokens += len(batch.places)
        self.nonfinite += (counted & ~finite).sum((0, 1))
        self.above += ((x > self.config.density_threshold) & finite).sum((0, 1))
        self.maximum = torch.maximum(self.maximum, torch.where(finite, x, -torch.inf).amax((0, 1)))
        self.minimum = torch.minimum(self.minimum, torch.where(finite, x, torch.inf).amin((0, 1)))
        self._add_powers(torch.where(finite, x, 0).double())
        self._count_bins(x, finite & self._put(batch.binned)[:, None, None])
        shown = torch.where(counted, x, torch.nan)
        if self.top:
            keys, seq_ids, splits = self._put(batch.keys), self._put(batch.seq_ids), batch.splits
            for top in self.top.values():
                top.add(shown, keys, seq_ids, splits)
        rows = x.reshape(-1, x.shape[2])[self._put(batch.positions)].double()
        targets = self._put(np.repeat(batch.token_rows, np.diff(batch.starts)))
        self.token_sums.index_add_(0, targets, (rows + GRID) - GRID)
        for b, seq_id in enumerate(batch.seq_ids.tolist()):
            if seq_id in self.uniform_ids:
                self.kept[seq_id] = shown[b, : int(batch.lengths[b])].clone()

    def _add_powers(self, x: Tensor) -> None:
        """Sum each sequence's powers over its (B, T, U) positions, then the sequences pairwise by two-sum."""
        square = x * x
        highs = torch.stack([part.sum(1) for part in (x, square, x * square, square * square)])
        pairs = torch.stack([highs, torch.zeros_like(highs)], dim=1)  # (4, 2, B, U)
        pairs = torch.cat([pairs, self.power_sums[:, :, None]], dim=2)
        while pairs.shape[2] > 1:
            half = pairs.shape[2] // 2
            joined = _add(pairs[:, :, :half], pairs[:, :, half : 2 * half])
            pairs = torch.cat([joined, pairs[:, :, 2 * half :]], dim=2)
        self.power_sums = pairs[:, :, 0]

    def _count_bins(self, x: Tensor, finite: Tensor) -> None:
        bits = x.contiguous().view(torch.int32)
        magnitude = (((bits & 0x7FFFFFFF) >> SHIFT) - OFFSET).clamp(0, BINS // 2 - 1)
        bins = BINS // 2 + (magnitude ^ (bits >> 31)).long()
        bins += torch.arange(x.shape[2], device=self.device) * BINS
        self.histogram.scatter_add_(0, bins.flatten(), finite.flatten().long())

    def _put(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)

    def sums(self) -> UnitSums:
        found = {
            "n_nonfinite": self.nonfinite,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "above": self.above,
            "power_sums": self.power_sums,
            "histogram": self.histogram.view(-1, BINS),
            "token_sums": self.token_sums,
        }
        top = {polarity: TopSums(*top.arrays()) for polarity, top in self.top.items()}
        return UnitSums(n_tokens=self.n_tokens, top=top, **{name: part.cpu().numpy() for name, part in found.items()})

    def uniform(self) -> Mapping[int, DenseRows]:
        return {seq_id: DenseRows(rows.cpu().numpy()) for seq_id, rows in self.kept.items()}


def _add(a: Tensor, b: Tensor) -> Tensor:
    """Sum of two (4, 2, ...) tensors of pairs, as in `moments.add`."""
    high, low = _two_sum(a[:, 0], b[:, 0])
    return torch.stack(_two_sum(high, low + (a[:, 1] + b[:, 1])), dim=1)


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)
