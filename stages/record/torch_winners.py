"""The strongest sequences of each unit in one polarity, as torch tensors on any device; see `winners`.

For each split the kept and the new sequences are sorted by activation and seq_id, and those whose neighbourhood comes
earlier in the order are left out. The activations of the kept ones stay where they lie: only those of inserted
sequences are copied, into the slots that became free. Finding out which these are is the one time in a batch that the
program waits for the device.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config import Record
from pipeline.kept import counts
from stages.record.selection import NO_SEQUENCE

Tensor = torch.Tensor


class TorchTop:
    """U units, K slots, sequences of at most T tokens."""

    def __init__(self, width: int, seq_len: int, config: Record, sign: int, device: torch.device) -> None:
        """sign: 1 for the largest activations, -1 for the most negative ones."""
        self.sign, self.distinct = sign, config.distinct
        kept = counts(config.top)
        self.starts = [sum(kept[:split]) for split in range(len(kept) + 1)]
        slots = self.starts[-1]
        self.values = torch.full((width, slots), -torch.inf, device=device)
        self.seq_ids = torch.full((width, slots), NO_SEQUENCE, dtype=torch.int64, device=device)
        self.keys = torch.zeros((width, slots), dtype=torch.int64, device=device)
        self.places = torch.arange(slots, device=device).repeat(width, 1)
        """(U, K) where in `vectors` the activations of a slot lie."""
        self.vectors = torch.zeros((width, slots, seq_len), device=device)

    def add(self, shown: Tensor, keys: Tensor, seq_ids: Tensor, splits: npt.NDArray[np.int64]) -> None:
        """Take a batch in.

        Args:
            shown: (B, T, U) activations, NaN where they do not count.
            keys: (B, T) neighbourhoods of the positions.
            seq_ids: (B,)
            splits: (B,) positions in SPLITS.
        """
        signed = torch.where(torch.isfinite(shown), shown * self.sign, -torch.inf)
        high, peak = signed.max(dim=1)  # (B, T, U) -> (B, U), the first position among equals
        key = keys.gather(1, peak)
        source = torch.full_like(self.places, -1)  # (U, K) the sequence of the batch that a slot now holds
        for split in range(len(self.starts) - 1):
            rows = torch.from_numpy(np.flatnonzero(splits == split)).to(high.device)
            if len(rows) and self.starts[split] < self.starts[split + 1]:
                self._insert(split, high[rows].T, seq_ids[rows], key[rows].T, rows, source)
        unit, slot = torch.nonzero(source >= 0, as_tuple=True)
        self.vectors[unit, self.places[unit, slot], : shown.shape[1]] = shown[source[unit, slot], :, unit]

    def _insert(self, split: int, high: Tensor, seq_ids: Tensor, keys: Tensor, rows: Tensor, source: Tensor) -> None:
        """Sort N new sequences, (U, N) high and keys, among those kept of their split; note in `source` what is new."""
        slots = slice(self.starts[split], self.starts[split + 1])
        count, width = self.starts[split + 1] - self.starts[split], len(high)
        values = torch.cat([self.values[:, slots], high], dim=1)
        ids = torch.cat([self.seq_ids[:, slots], seq_ids.expand(width, -1)], dim=1)
        ids = torch.where(values == -torch.inf, NO_SEQUENCE, ids)
        all_keys = torch.cat([self.keys[:, slots], keys], dim=1)
        order = ids.argsort(dim=1, stable=True)
        order = order.gather(1, values.gather(1, order).argsort(dim=1, stable=True, descending=True))
        real = values.gather(1, order) > -torch.inf
        if self.distinct:
            real &= _firsts(all_keys.gather(1, order))
            order = order.gather(1, (~real).int().argsort(dim=1, stable=True))
            real = real.sum(1, keepdim=True) > torch.arange(order.shape[1], device=order.device)
        chosen, real = order[:, :count], real[:, :count]
        self.values[:, slots] = torch.where(real, values.gather(1, chosen), -torch.inf)
        self.seq_ids[:, slots] = torch.where(real, ids.gather(1, chosen), NO_SEQUENCE)
        self.keys[:, slots] = all_keys.gather(1, chosen)
        stays = chosen < count
        source[:, slots] = torch.where(stays, -1, rows[(chosen - count).clamp(min=0)])
        self.places[:, slots] = _placed(self.places[:, slots], chosen, stays)

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """Values, seq_ids, keys and vectors of `TopSums`."""
        vectors = self.vectors.gather(1, self.places[:, :, None].expand_as(self.vectors))
        return tuple(part.cpu().numpy() for part in (self.values, self.seq_ids, self.keys, vectors))


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
