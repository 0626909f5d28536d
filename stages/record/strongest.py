"""The best exemplars of a range of units, over any number of partials.

Of the sequences of a unit, polarity and split those with the largest values are kept, in a total order: value falling,
then seq_id rising. Sequences with equal keys count once, by the best of them. A sequence that does not enter when it
comes is behind as many others with distinct keys as can be kept, so it never will; the outcome does not depend on the
order of the partials.
"""

# mypy: disable-error-code="no-untyped-def"
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from stages.record.kept import counts
from stages.record.partials import SIGNS, floats
from stages.record.selection import NO_SEQUENCE, split_numbers
from stages.settings import Record

Array = npt.NDArray[Any]


class Strongest:
    """The kept sequences of U units from `start` on: P polarities, K slots (those of each split lie together), T tokens."""

    def __init__(self, start: int, stop: int, config: Record) -> None:
        self.start, self.distinct = start, config.distinct
        self.polarities: list[str] = list(config.polarities)
        kept = counts(config.top)
        self.first_slots = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        shape = (stop - start, len(self.polarities), int(self.first_slots[-1]))
        self.values = np.full(shape, -np.inf, np.float32)
        self.seq_ids = np.full(shape, NO_SEQUENCE)
        self.keys = np.zeros(shape, np.int64)
        self.vectors = np.full((*shape, 0), np.nan, np.float32)
        self.lengths = np.zeros(shape, np.int64)

    def add(self, rows: pa.Table) -> None:
        """Take rows of PARTIAL_EXEMPLARS in."""
        flat, starts = floats(rows["activations"])
        longest = int(np.diff(starts).max(initial=0))
        if longest > self.vectors.shape[3]:
            more = [(0, 0)] * 3 + [(0, longest - self.vectors.shape[3])]
            self.vectors = np.pad(self.vectors, more, constant_values=np.nan)
        numbers = np.full(3, -1, np.int64)  # by sign + 1
        for number, polarity in enumerate(self.polarities):
            numbers[SIGNS[polarity] + 1] = number
        seq_ids = rows["seq_id"].to_numpy()
        _keep_best(
            rows["index"].to_numpy() - self.start,
            numbers[rows["polarity"].to_numpy() + np.int64(1)],
            _splits(seq_ids),
            seq_ids,
            rows["key"].to_numpy(),
            rows["value"].to_numpy(),
            flat,
            starts,
            self.first_slots,
            self.distinct,
            (self.values, self.seq_ids, self.keys, self.vectors, self.lengths),
        )

    def sort(self) -> None:
        """Put the slots of each split in the order of rank, empty ones last."""
        for first, last in zip(self.first_slots[:-1], self.first_slots[1:], strict=True):
            part = (slice(None), slice(None), slice(first, last))
            order = np.lexsort((self.seq_ids[part], -self.values[part]), axis=-1)
            for array in (self.values, self.seq_ids, self.keys, self.lengths):
                array[part] = np.take_along_axis(array[part], order, axis=-1)
            self.vectors[part] = np.take_along_axis(self.vectors[part], order[..., None], axis=2)


def _splits(seq_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions in SPLITS; looked up, as there are far fewer sequences than rows."""
    if not len(seq_ids):
        return np.zeros(0, np.int64)
    low, high = int(seq_ids.min()), int(seq_ids.max())
    if high - low > 2 * len(seq_ids):
        return split_numbers(seq_ids)
    return split_numbers(np.arange(low, high + 1))[seq_ids - low]


@njit(cache=True, nogil=True)
def _keep_best(units, polarities, splits, seq_ids, keys, values, flat, starts, first_slots, distinct, state):
    """Insert N rows where they beat the worst kept one, or one with their key."""
    kept_values, kept_ids, kept_keys, vectors, lengths = state
    for row in range(units.size):
        u, p, value, seq_id = units[row], polarities[row], values[row], seq_ids[row]
        first, last = first_slots[splits[row]], first_slots[splits[row] + 1]
        if p < 0 or first == last or not value > -np.inf:
            continue
        slot = worst = first
        same = False
        for k in range(first, last):
            if distinct and kept_values[u, p, k] > -np.inf and kept_keys[u, p, k] == keys[row]:
                slot, same = k, True
                break
            lower = kept_values[u, p, k] < kept_values[u, p, worst]
            if lower or (
                kept_values[u, p, k] == kept_values[u, p, worst] and kept_ids[u, p, k] > kept_ids[u, p, worst]
            ):
                worst = k
        if not same:
            slot = worst
        beaten = kept_values[u, p, slot]
        if value < beaten or (value == beaten and seq_id >= kept_ids[u, p, slot]):
            continue
        kept_values[u, p, slot], kept_ids[u, p, slot], kept_keys[u, p, slot] = value, seq_id, keys[row]
        size = starts[row + 1] - starts[row]
        lengths[u, p, slot] = size
        for t in range(size):
            vectors[u, p, slot, t] = flat[starts[row] + t]
