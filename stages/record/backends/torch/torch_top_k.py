"""The top-k sequences of each unit, as torch tensors on any device; see `numba_top_k` for what is kept.

A sequence has a rank: an int64 that orders by activation and then by seq_id. For each split, kept and new sequences are ranked
together, those with a better one of the same neighbourhood are struck out, and `topk` chooses. Sequences that stay keep
their slots; new ones go into the slots that became free, and only their activations are copied. To know which these are, the
program waits for the device once a batch, for both polarities together.
"""

from collections.abc import Sequence

import torch

from stages.record.backends.contract import TopK
from stages.record.backends.device import DeviceBatch, DeviceVectors
from stages.record.kept_sequences import NO_SEQUENCE, SIGNS, slot_starts
from stages.settings import Record

Tensor = torch.Tensor
EMPTY = -(2**63)
"""Rank of an empty slot, and of what is no exemplar."""
LATEST = 2**32 - 1
"""Largest seq_id that a rank can hold."""


class TorchTopK:
    """P polarities, U units, K slots, sequences of at most T tokens."""

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
