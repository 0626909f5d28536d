"""The running state of a module on any torch device with float64; nothing leaves the device before the end.

The statistics are those of the numba backend, computed on tensors of a whole batch. Sums within a sequence are added up in
another order, so moments can differ in the last bits of a float64. Everything else is equal for equal activations. The
program waits for the device once for each module and batch, to know which sequences are new in the top-k. `triton_sums` is
faster and never waits.

Activations may be of any floating type. At most CHUNK of them at a time become float32.
"""

from collections.abc import Sequence
from typing import Any

import torch

from stages.record.backends.contract import TopK, UnitSums
from stages.record.backends.device import DeviceBatch, DeviceState, DeviceVectors, on_device
from stages.record.recorded_batch import GRID, Batch
from stages.record.sequences import NO_SEQUENCE, SIGNS, polarities, slot_starts
from stages.record.unit_statistics import BINS, OFFSET, SHIFT
from stages.settings import Record

CHUNK = 2**24
"""Activations that are worked on together."""
EMPTY = -(2**63)
"""Rank of an empty slot, and of what is no exemplar."""
LATEST = 2**32 - 1
"""Largest seq_id that a rank can hold."""
Tensor = torch.Tensor


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
        """Count (B, T, U) activations in the histograms; see `unit_statistics` for the bins."""
        bits = x.contiguous().view(torch.int32)
        magnitude = (((bits & 0x7FFFFFFF) >> SHIFT) - OFFSET).clamp(0, BINS // 2 - 1)
        bins = BINS // 2 + (magnitude ^ (bits >> 31)).long()
        bins += torch.arange(units.start, units.stop, device=self.device) * BINS
        self.histogram.view(-1).scatter_add_(0, bins.flatten(), counted.flatten().int())

    def sums(self) -> UnitSums:
        return self.unit_sums(self.top.sums())


def add_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Sum of two (4, 2, ...) tensors of pairs, as in `unit_statistics.add`."""
    high, low = two_sum(a[:, 0], b[:, 0])
    return torch.stack(two_sum(high, low + (a[:, 1] + b[:, 1])), dim=1)


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The rounded sum and what rounding left out."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)


class TorchTopK:
    """The top-k sequences of each unit; P polarities, U units, K slots, sequences of at most T tokens.

    A sequence has a rank: an int64 that orders by activation and then by seq_id. For each split, kept and new sequences are
    ranked together, those with a better one of the same neighbourhood are struck out, and `topk` chooses. Sequences that stay
    keep their slots; new ones go into the slots that became free, and only their activations are copied.
    """

    def __init__(
        self, width: int, seq_len: int, config: Record, polarities: Sequence[str], device: torch.device
    ) -> None:
        self.signs = {polarity: SIGNS[polarity] for polarity in polarities}
        self.distinct = config.distinct
        self.starts = slot_starts(config).tolist()
        shape = (len(polarities), width, self.starts[-1])
        self.ranks = torch.full(shape, EMPTY, device=device)
        self.keys = torch.zeros(shape, dtype=torch.int64, device=device)
        self.vectors = torch.zeros((*shape, seq_len), device=device)

    def add(self, x: Tensor, high: Tensor, peaks: Tensor, here: DeviceBatch) -> None:
        """Add a batch.

        Args:
            x: (B, T, U) activations.
            high, peaks: (P, B, U) largest values in each polarity, -inf where there is none, and the first position of each.
        """
        source = torch.full_like(self.ranks, -1)  # (P, U, K) the sequence of the batch that a slot now holds
        for p in range(len(high)):
            ranks, keys = ranked(high[p], here.seq_ids[:, None]).T, here.keys.gather(1, peaks[p]).T
            for split, rows in enumerate(here.by_split):
                slots = slice(self.starts[split], self.starts[split + 1])
                if len(rows) and slots.start < slots.stop:
                    chosen, target = self._choose(p, slots, ranks[:, rows], keys[:, rows])
                    new = (chosen >= 0) & (self.ranks[p, :, slots].gather(1, target) > EMPTY)
                    source[p, :, slots].scatter_(1, target, torch.where(new, rows[chosen.clamp(min=0)], -1))
        sign, unit, slot = torch.nonzero(source >= 0, as_tuple=True)
        row = source[sign, unit, slot]
        new_vectors = x[row, :, unit].float().masked_fill(here.counted[row] == 0, torch.nan)
        self.vectors[sign, unit, slot, : x.shape[1]] = new_vectors

    def _choose(self, p: int, slots: slice, ranks: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Put the best of the kept and of (U, N) new sequences into the slots of a split.

        Returns:
            (U, K) which of the new sequences is chosen, -1 for one that was kept before, and the slot of each.
        """
        kept_ranks, kept_keys = self.ranks[p, :, slots], self.keys[p, :, slots]
        count = kept_ranks.shape[1]
        ranks, keys = torch.cat([kept_ranks, ranks], dim=1), torch.cat([kept_keys, keys], dim=1)
        allowed = ranks
        if self.distinct:
            order = ranks.argsort(dim=1, descending=True)
            first = torch.empty_like(order, dtype=torch.bool).scatter_(1, order, firsts(keys.gather(1, order)))
            allowed = ranks.masked_fill(~first, EMPTY)
        chosen = allowed.topk(count, dim=1).indices.sort(dim=1, descending=True).values  # new ones come first
        stays = torch.zeros((len(chosen), count + 1), dtype=torch.bool, device=chosen.device)
        stays.scatter_(1, chosen.clamp(max=count), True)
        free = stays[:, :count].int().argsort(dim=1, stable=True)  # as many as there are new ones, then others
        target = torch.where(chosen < count, chosen, free)
        self.ranks[p, :, slots] = torch.empty_like(kept_ranks).scatter_(1, target, allowed.gather(1, chosen))
        self.keys[p, :, slots] = torch.empty_like(kept_keys).scatter_(1, target, keys.gather(1, chosen))
        return torch.where(chosen < count, -1, chosen - count), target

    def sums(self) -> dict[str, TopK]:
        """What is kept, by polarity."""
        values, seq_ids = (part.cpu().numpy() for part in unranked(self.ranks))
        keys = self.keys.cpu().numpy()
        return {
            polarity: TopK(values[p], seq_ids[p], keys[p], DeviceVectors(self.vectors[p]))
            for p, polarity in enumerate(self.signs)
        }


def ranked(values: Tensor, seq_ids: Tensor) -> Tensor:
    """One int64 for float32 and seq_id: larger for a larger value, and of equal ones for a lower seq_id."""
    bits = (values + 0.0).view(torch.int32)  # 0.0 for -0.0, as the two are equal
    sortable = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
    return torch.where(values == -torch.inf, EMPTY, (sortable << 32) + (LATEST - seq_ids))


def unranked(ranks: Tensor) -> tuple[Tensor, Tensor]:
    """The values and seq_ids of ranks; -inf and NO_SEQUENCE of EMPTY ones."""
    sortable = (ranks >> 32).int()
    values = (sortable ^ ((sortable >> 31) & 0x7FFFFFFF)).view(torch.float32)
    empty = ranks == EMPTY
    return values.masked_fill(empty, -torch.inf), (LATEST - (ranks & LATEST)).masked_fill(empty, NO_SEQUENCE)


def firsts(keys: Tensor) -> Tensor:
    """(U, N) mask of the keys that do not occur earlier in their row."""
    order = keys.argsort(dim=1, stable=True)
    ordered = keys.gather(1, order)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(first).scatter_(1, order, first)
