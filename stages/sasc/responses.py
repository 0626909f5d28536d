"""What is kept of responses to n-grams while they come: exact sums, the top-k n-grams, and means over occurrences.

The result depends neither on the order in which n-grams come nor on their spread over shards: sums carry what float64 rounds
away, and ties have a total order, by response and then by ngram_id.

Shapes: B n-grams or sequences of a batch, T tokens, M occurrences, L tokens of each, U units, N n-grams, K n-grams kept of each unit.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.subjects.activations import Activations, SparseActivations, with_float64
from pipeline.subjects.text_functions import Pool, pooled
from stages.record.unit_statistics import SPLITTER
from stages.sasc import Sasc
from stages.sasc.sasc_tables import NGRAM_PARTIALS

AT_ONCE = 1 << 16
"""Candidates gathered before the top-k are picked, at least."""
GATHERED = 1 << 22
"""Activations gathered at a time."""
TERMS = 3
"""Numbers that a sum consists of."""
NONE = np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


class ModuleResponses:
    """The responses of some units of a module."""

    def __init__(
        self, module: str, indices: Sequence[int], largest: int, smallest: int, polarity: str | None = None
    ) -> None:
        """
        Args:
            indices: numbers of the U units in the module.
            largest, smallest: n-grams with such responses that are kept.
            polarity: the one that the responses are for; None for both.
        """
        self.module, self.indices, self.polarity = module, list(indices), polarity
        self._largest, self._smallest = TopNgrams(len(indices), largest), TopNgrams(len(indices), smallest)
        self._ngrams = 0
        self._nonfinite = np.zeros(len(indices), np.int64)
        self._first = np.full(len(indices), NONE)
        self._sums = Sums(len(indices))

    @classmethod
    def for_run(cls, sasc: Sasc, module: str, indices: Sequence[int], polarity: str | None = None) -> "ModuleResponses":
        """Those that a run asks for; of an end that is not explained only the extreme is kept."""
        explained = sasc.polarities if polarity is None else [polarity]
        largest, smallest = (sasc.kept if end in explained else 1 for end in "+-")
        return cls(module, indices, largest, smallest, polarity)

    def add(self, ngram_ids: Ints, values: torch.Tensor) -> None:
        """Take in responses of the units: (B, U) float32 or float64, on any device."""
        values = with_float64(values)
        ids = torch.from_numpy(np.asarray(ngram_ids)).to(values.device)
        self._ngrams += len(ngram_ids)
        finite = values.isfinite()
        if not finite.all():
            self._nonfinite += (~finite).sum(dim=0).cpu().numpy()
            first = torch.where(finite, NONE, ids[:, None]).amin(dim=0).cpu().numpy()
            self._first = np.minimum(self._first, first)
        self._sums.add(values.masked_fill(~finite, 0.0))
        doubles = values.double()
        self._largest.add(ids, doubles)
        self._smallest.add(ids, -doubles)

    def rows(self, error: str | None = None) -> pa.Table:
        """Rows of NGRAM_PARTIALS, by unit; `error` says why there are no responses."""
        units = len(self.indices)
        columns = {
            "module": pa.repeat(self.module, units),
            "index": np.asarray(self.indices, np.int32),
            "polarity": pa.array([self.polarity] * units, pa.string()),
            "n_ngrams": np.full(units, self._ngrams),
            "n_nonfinite": self._nonfinite,
            "first_nonfinite": pa.array(self._first, mask=self._first == NONE),
            "sums": list(self._sums.terms().reshape(units, 2 * TERMS)),
            "largest": self._lists(self._largest, 1.0),
            "smallest": self._lists(self._smallest, -1.0),
            "error": pa.array([error] * units, pa.string()),
        }
        return pa.table(columns, schema=NGRAM_PARTIALS.schema)

    def _lists(self, top: "TopNgrams", sign: float) -> pa.ListArray:
        units, values, ids = top.lists()
        ends = np.cumsum(np.bincount(units, minlength=len(self.indices)))
        kind = NGRAM_PARTIALS.schema.field("largest").type
        entries = pa.StructArray.from_arrays([ids, sign * values + 0.0], fields=list(kind.value_type))
        return pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), entries, type=kind)


class TopNgrams:
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
            found = (units, values[rows, units], ngram_ids[rows])
            self._found.append(tuple(part.cpu().numpy() for part in found))  # type: ignore[arg-type]
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
        order = top_k(units, values, ids, self._kept)
        units, values, ids = units[order], values[order], ids[order]
        self._found, self._pending = [(units, values, ids)], 0
        counts = np.bincount(units, minlength=self._units)
        full = np.flatnonzero(counts == self._kept)
        last = np.cumsum(counts)[full] - 1
        self._bound[full] = torch.from_numpy(values[last]).to(self._bound)
        self._bound_id[full] = torch.from_numpy(ids[last]).to(self._bound_id)


def top_k(units: Ints, values: Doubles, ids: Ints, kept: int) -> Ints:
    """The places of the `kept` largest values of each unit: by unit, then by falling value, then by rising id."""
    order = np.lexsort([ids, -values, units])
    _, first, sizes = np.unique(units[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    return order[rank < kept]


class Sums:
    """Sums of x and of x^2 of each unit, as TERMS numbers that add up to them.

    What additions of float64 round away is kept (Knuth's two-sum) and added up likewise, which gives about 159 bits. So another
    order of adding changes the sums, and what is made of them, far below the last bit of what is published.
    """

    def __init__(self, units: int) -> None:
        self._rows = [torch.zeros(TERMS, units, dtype=torch.float64)] * 2

    def add(self, values: torch.Tensor) -> None:
        """Add (B, U) finite values: float32 or float64, whose squares take two numbers."""
        wide = values.double()
        squares, high = wide * wide, SPLITTER * wide  # Dekker 1971
        high = high - (high - wide)
        low = wide - high
        lost = ((high * high - squares) + 2.0 * high * low) + low * low
        for power, rows in enumerate(([wide], [squares, lost])):
            self._rows[power] = _distilled(torch.cat([self._rows[power].to(wide.device), *rows]))

    def terms(self) -> Doubles:
        """(U, 2, TERMS) of x and of x^2."""
        found: Doubles = torch.stack(self._rows).permute(2, 0, 1).cpu().numpy()
        return found


def _distilled(rows: torch.Tensor) -> torch.Tensor:
    """(TERMS, U) float64 whose sum is that of the rows (B, U): the sum as rounded, what it lacks, and what that lacks."""
    terms = []
    for _ in range(TERMS - 1):
        lost = []
        while len(rows) > 1:
            half = len(rows) // 2
            one, other = rows[:half], rows[half : 2 * half]
            total = one + other
            part = total - one
            lost.append((one - (total - part)) + (other - part))
            rows = torch.cat([total, rows[2 * half :]])
        terms.append(rows)
        rows = torch.cat(lost) if lost else torch.zeros_like(rows)
    return torch.cat([*terms, rows.sum(dim=0, keepdim=True)])


class Means:
    """Mean responses of U units over the occurrences of N n-grams, summed on the CPU, always in the same order."""

    def __init__(self, ngrams: int, units: Sequence[int], pool: Pool) -> None:
        """
        Args:
            units: indices of the U units among those that activations are given of.
            pool: how the activations on the tokens of an occurrence become one number.
        """
        self._units, self._pool = list(units), pool
        self._counts = np.zeros(ngrams, np.int64)
        self._sums = torch.zeros(ngrams, len(units), dtype=torch.float64)

    def add(self, activations: Activations, spans: Ints) -> None:
        """Add the occurrences in a batch: (M, 4) a row of it, an n-gram, its first token and the one after its last."""
        self._counts += np.bincount(spans[:, 1], minlength=len(self._counts))
        wide = _columns(activations, self._units)
        lengths = spans[:, 3] - spans[:, 2]
        for length in np.unique(lengths).tolist():
            found = spans[lengths == length]
            size = max(1, GATHERED // (length * len(self._units)))
            for start in range(0, len(found), size):
                rows, ngrams, first, _ = torch.from_numpy(found[start : start + size].T.copy())
                positions = first[:, None] + torch.arange(length)
                own = wide[rows[:, None].to(wide.device), positions.to(wide.device)]  # (M, L, U)
                responses = pooled(own, torch.ones(own.shape[:2], dtype=torch.bool, device=wide.device), self._pool)
                self._sums.index_add_(0, ngrams, responses.cpu().double())

    def responses(self) -> tuple[Ints, torch.Tensor]:
        """The numbers of the n-grams that occur, and their (M, U) mean responses."""
        seen = np.flatnonzero(self._counts)
        return seen, self._sums[seen] / torch.from_numpy(self._counts[seen])[:, None]


def _columns(activations: Activations, units: Sequence[int]) -> torch.Tensor:
    """(B, T, U) of some units."""
    if not isinstance(activations, SparseActivations):
        found: torch.Tensor = activations[..., torch.as_tensor(units, device=activations.device)]
        return found
    texts, tokens, width = activations.shape
    device = activations.values.device
    column = torch.full((width,), -1, device=device)
    column[torch.as_tensor(units, device=device)] = torch.arange(len(units), device=device)
    places = column[activations.units]
    kept = places >= 0
    dense = torch.zeros(texts * tokens, len(units), device=device)
    dense[activations.positions[kept], places[kept]] = activations.values[kept].float()
    return dense.reshape(texts, tokens, len(units))
