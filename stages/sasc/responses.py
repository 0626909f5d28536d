"""What is kept of the responses to n-grams while they come: exact sums, and the n-grams with the strongest ones.

The result does not depend on the order in which n-grams come, nor on how they are spread over shards: sums are pairs of
float64 as in stages/record/moments.py, and ties have a total order, by response and then by ngram_id.

Shapes: B n-grams of a batch, U units, K n-grams kept of each unit.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from stages.record.moments import SPLITTER, add, renormalised
from stages.sasc.tables import NGRAM_PARTIALS

AT_ONCE = 1 << 16
"""Candidates gathered before the best are picked, at least."""
NONE = np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


class Strongest:
    """The K n-grams with the largest responses of each unit."""

    def __init__(self, units: int, kept: int) -> None:
        self._units, self._kept = units, kept
        self._most = max(AT_ONCE, units * kept)
        self._found: list[tuple[Ints, Doubles, Ints]] = []
        self._pending = 0
        self._bound = torch.full((units,), -torch.inf, dtype=torch.float64)
        self._bound_id = torch.full((units,), NONE)

    def add(self, ngram_ids: torch.Tensor, values: torch.Tensor) -> None:
        """Take in (B, U) float64 responses to the n-grams (B,); those that are not finite are passed over."""
        if self._bound.device != values.device:
            self._bound, self._bound_id = self._bound.to(values.device), self._bound_id.to(values.device)
        better = (values > self._bound) | ((values == self._bound) & (ngram_ids[:, None] < self._bound_id))
        rows, units = torch.nonzero(better & values.isfinite(), as_tuple=True)
        if len(rows):
            strong = values[rows, units]
            self._found.append((units.cpu().numpy(), strong.cpu().numpy(), ngram_ids[rows].cpu().numpy()))
            self._pending += len(rows)
        if self._pending > self._most:
            self._pick()

    def lists(self) -> tuple[Ints, Doubles, Ints]:
        """Unit, response and ngram_id of what is kept: by unit, then by falling response, then by ngram_id."""
        self._pick()
        return self._found[0]

    def _pick(self) -> None:
        empty = (np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
        units, values, ids = (np.concatenate(parts) for parts in zip(empty, *self._found, strict=True))
        order = best(units, values, ids, self._kept)
        self._found, self._pending = [(units[order], values[order], ids[order])], 0
        counts = np.bincount(units[order], minlength=self._units)
        full = np.flatnonzero(counts == self._kept)
        last = np.cumsum(counts)[full] - 1
        self._bound[full] = torch.from_numpy(values[order][last]).to(self._bound)
        self._bound_id[full] = torch.from_numpy(ids[order][last]).to(self._bound_id)


def best(units: Ints, values: Doubles, ids: Ints, kept: int) -> Ints:
    """The places of the `kept` largest values of each unit: by unit, then by falling value, then by rising id."""
    order = np.lexsort([ids, -values, units])
    _, first, sizes = np.unique(units[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    return order[rank < kept]


class ModuleResponses:
    """The responses of some units of a module."""

    def __init__(self, module: str, indices: list[int], largest: int, smallest: int) -> None:
        """
        Args:
            indices: numbers of the U units in the module.
            largest: n-grams with the largest responses that are kept.
            smallest: n-grams with the smallest responses.
        """
        self.module, self.indices = module, indices
        self._largest, self._smallest = Strongest(len(indices), largest), Strongest(len(indices), smallest)
        self._ngrams = 0
        self._nonfinite = np.zeros(len(indices), np.int64)
        self._first = np.full(len(indices), NONE)
        self._sums = np.zeros((2, 2, len(indices)))

    def add(self, ngram_ids: Ints, values: torch.Tensor) -> None:
        """Take in responses of the units: (B, U) float32 or float64, on any device."""
        ids = torch.from_numpy(np.asarray(ngram_ids)).to(values.device)
        self._ngrams += len(ngram_ids)
        finite = values.isfinite()
        if not finite.all():
            self._nonfinite += (~finite).sum(dim=0).cpu().numpy()
            first = torch.where(finite, NONE, ids[:, None]).amin(dim=0).cpu().numpy()
            self._first = np.minimum(self._first, first)
        known = values.masked_fill(~finite, 0.0)
        for power, sums in enumerate(power_sums(known)):
            self._sums[power] = add(self._sums[power], sums)
        doubles = values.double()
        self._largest.add(ids, doubles)
        self._smallest.add(ids, -doubles)

    def rows(self) -> pa.Table:
        """Rows of NGRAM_PARTIALS, by unit."""
        units = len(self.indices)
        columns = {
            "module": pa.repeat(self.module, units),
            "index": np.asarray(self.indices, np.int32),
            "n_ngrams": np.full(units, self._ngrams),
            "n_nonfinite": self._nonfinite,
            "first_nonfinite": pa.array(self._first, mask=self._first == NONE),
            "sums": list(self._sums.transpose(2, 0, 1).reshape(units, 4)),
            "largest": self._lists(self._largest, 1.0),
            "smallest": self._lists(self._smallest, -1.0),
            "error": pa.nulls(units, pa.string()),
        }
        return pa.table(columns, schema=NGRAM_PARTIALS.schema)

    def _lists(self, strongest: Strongest, sign: float) -> pa.ListArray:
        units, values, ids = strongest.lists()
        ends = np.cumsum(np.bincount(units, minlength=len(self.indices)))
        kind = NGRAM_PARTIALS.schema.field("largest").type
        entries = pa.StructArray.from_arrays([ids, sign * values + 0.0], fields=list(kind.value_type))
        return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), entries, type=kind)


def failed_rows(module: str, indices: list[int], error: str) -> pa.Table:
    """Rows of NGRAM_PARTIALS of a module that gives no responses."""
    units = len(indices)
    columns = {
        "module": pa.repeat(module, units),
        "index": np.asarray(indices, np.int32),
        "n_ngrams": np.zeros(units, np.int64),
        "n_nonfinite": np.zeros(units, np.int64),
        "first_nonfinite": pa.nulls(units, pa.int64()),
        "sums": [[0.0] * 4] * units,
        "largest": [[]] * units,
        "smallest": [[]] * units,
        "error": pa.repeat(error, units),
    }
    return pa.table(columns, schema=NGRAM_PARTIALS.schema)


def power_sums(values: torch.Tensor) -> tuple[Doubles, Doubles]:
    """Sums of x and of x^2 over the rows, (2, U) each, a leading part and a rest.

    Args:
        values: (B, U) finite; squares of float32 are exact in float64, those of float64 are carried as pairs (Dekker 1971).
    """
    wide = values.double()
    squares = wide * wide
    rest = torch.zeros_like(wide)
    if values.dtype == torch.float64:
        high = SPLITTER * wide
        high = high - (high - wide)
        low = wide - high
        rest = ((high * high - squares) + 2.0 * high * low) + low * low
    return _summed(wide, torch.zeros_like(wide)), _summed(squares, rest)


def _summed(high: torch.Tensor, low: torch.Tensor) -> Doubles:
    """The sum over the rows of pairs (B, U), by halves, with what each addition rounds away carried along."""
    while len(high) > 1:
        half = len(high) // 2
        odd_high, odd_low = high[2 * half :], low[2 * half :]
        one, other = high[:half], high[half : 2 * half]
        total = one + other
        part = total - one
        lost = (one - (total - part)) + (other - part)
        high = torch.cat([total, odd_high])
        low = torch.cat([low[:half] + low[half : 2 * half] + lost, odd_low])
    return renormalised(high.cpu().numpy()[0], low.cpu().numpy()[0])
