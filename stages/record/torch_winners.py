"""The strongest sequences of each unit, as torch tensors on any device; see `winners`.

For each split the kept and the new sequences are sorted by activation and seq_id, and those whose neighbourhood comes
earlier in the order are left out. The activations of the kept ones stay where they lie: only those of inserted
sequences are copied, into the slots that became free. Finding out which these are, for both polarities at once, is the
one time in a batch that the program waits for the device.
"""

from collections.abc import Sequence

import torch

from stages.record.device_batch import DeviceBatch
from stages.record.device_rows import DeviceVectors
from stages.record.kept import counts
from stages.record.selection import NO_SEQUENCE
from stages.record.sums import TopSums
from stages.settings import Record

Tensor = torch.Tensor
SIGNS = {"+": 1, "-": -1}


class TorchTop:
    """P polarities, U units, K slots, sequences of at most T tokens."""

    def __init__(
        self, width: int, seq_len: int, config: Record, polarities: Sequence[str], device: torch.device
    ) -> None:
        self.signs = {polarity: SIGNS[polarity] for polarity in polarities}
        self.distinct = config.distinct
        kept = counts(config.top)
        self.starts = [sum(kept[:split]) for split in range(len(kept) + 1)]
        shape = (len(polarities), width, self.starts[-1])
        self.values = torch.full(shape, -torch.inf, device=device)
        self.seq_ids = torch.full(shape, NO_SEQUENCE, dtype=torch.int64, device=device)
        self.keys = torch.zeros(shape, dtype=torch.int64, device=device)
        self.places = torch.arange(shape[2], device=device).repeat(*shape[:2], 1)
        """(P, U, K) where in `vectors` the activations of a slot lie."""
        self.vectors = torch.zeros((*shape, seq_len), device=device)

    def add(self, x: Tensor, high: Tensor, peaks: Tensor, here: DeviceBatch) -> None:
        """Take a batch in.

        Args:
            x: (B, T, U) activations.
            high, peaks: (P, B, U) largest values in each polarity, -inf where there is none, and the first position of each.
        """
        source = torch.full_like(self.places, -1)  # (P, U, K) the sequence of the batch that a slot now holds
        for p in range(len(high)):
            key = here.keys.gather(1, peaks[p])
            for split, rows in enumerate(here.by_split):
                if len(rows) and self.starts[split] < self.starts[split + 1]:
                    self._insert(p, split, high[p, rows].T, here.seq_ids[rows], key[rows].T, rows, source[p])
        sign, unit, slot = torch.nonzero(source >= 0, as_tuple=True)
        row = source[sign, unit, slot]
        new = x[row, :, unit].float().masked_fill(here.counted[row] == 0, torch.nan)
        self.vectors[sign, unit, self.places[sign, unit, slot], : x.shape[1]] = new

    def _insert(
        self, p: int, split: int, high: Tensor, seq_ids: Tensor, keys: Tensor, rows: Tensor, source: Tensor
    ) -> None:
        """Sort N new sequences, (U, N) high and keys, among those kept of their split; note in `source` what is new."""
        slots = slice(self.starts[split], self.starts[split + 1])
        count, width = self.starts[split + 1] - self.starts[split], len(high)
        values = torch.cat([self.values[p, :, slots], high], dim=1)
        ids = torch.cat([self.seq_ids[p, :, slots], seq_ids.expand(width, -1)], dim=1)
        ids = torch.where(values == -torch.inf, NO_SEQUENCE, ids)
        all_keys = torch.cat([self.keys[p, :, slots], keys], dim=1)
        order = ids.argsort(dim=1, stable=True)
        order = order.gather(1, values.gather(1, order).argsort(dim=1, stable=True, descending=True))
        real = values.gather(1, order) > -torch.inf
        if self.distinct:
            real &= _firsts(all_keys.gather(1, order))
            order = order.gather(1, (~real).int().argsort(dim=1, stable=True))
            real = real.sum(1, keepdim=True) > torch.arange(order.shape[1], device=order.device)
        chosen, real = order[:, :count], real[:, :count]
        self.values[p, :, slots] = torch.where(real, values.gather(1, chosen), -torch.inf)
        self.seq_ids[p, :, slots] = torch.where(real, ids.gather(1, chosen), NO_SEQUENCE)
        self.keys[p, :, slots] = all_keys.gather(1, chosen)
        stays = chosen < count
        source[:, slots] = torch.where(stays, -1, rows[(chosen - count).clamp(min=0)])
        self.places[p, :, slots] = _placed(self.places[p, :, slots], chosen, stays)

    def sums(self) -> dict[str, TopSums]:
        """What is kept, by polarity."""
        return {polarity: self._sums(p) for p, polarity in enumerate(self.signs)}

    def _sums(self, p: int) -> TopSums:
        def vectors(units: slice) -> Tensor:
            there = self.vectors[p, units]
            return there.gather(1, self.places[p, units, :, None].expand_as(there))

        values, seq_ids, keys = (part[p].cpu().numpy() for part in (self.values, self.seq_ids, self.keys))
        return TopSums(
            values, seq_ids, keys, DeviceVectors(self.vectors.shape[1], tuple(self.vectors.shape[1:]), vectors)
        )


def _firsts(keys: Tensor) -> Tensor:
    """(U, N) mask of the keys that do not occur earlier in their row."""
    order = keys.argsort(dim=1, stable=True)
    ordered = keys.gather(1, order)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(first).scatter_(1, order, first)


def _placed(places: Tensor, chosen: Tensor, stays: Tensor) -> Tensor:
    """Where the activations of the chosen lie: those that stay where they were, the others where room became free.

    Args:
        places: (U, K) of the kept sequences so far.
        chosen: (U, K) positions among the kept and the new sequences.
        stays: (U, K) which of them were kept before.
    """
    count = places.shape[1]
    free = torch.ones((len(places), count + 1), dtype=torch.bool, device=places.device)
    free.scatter_(1, torch.where(stays, chosen, count), False)
    vacant = places.gather(1, (~free[:, :count]).int().argsort(dim=1, stable=True))
    nth = ((~stays).int().cumsum(1) - 1).clamp(min=0)
    return torch.where(stays, places.gather(1, chosen.clamp(max=count - 1)), vacant.gather(1, nth))
