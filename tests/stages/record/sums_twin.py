"""Partials of made-up activations by brute force, and what a merge of them must give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.evidence import SPLITS, split_of
from stages.record.backends.contract import TopK, UnitSums
from stages.record.partial_tables import exemplar_rows, token_rows, uniform_rows, unit_rows
from stages.record.recorded_batch import TokenTable
from stages.record.sequences import NO_SEQUENCE, counts, uniform_ids
from stages.record.unit_statistics import BINS, INNER_EDGES, ZERO_BIN
from stages.settings import PerSplit, Record

MODULE = "layers.0.mlp"
SETTINGS = Record(
    top=PerSplit(explain=3, select=2, report=1),
    random=PerSplit(explain=2, select=1, report=1),
    per_band=PerSplit(explain=2, select=1, report=0),
    pool=24,
    quantiles=[0.37, 0.83],
    activation_bits=24,
)
SIGN = {"+": 1, "-": -1}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class World:
    """S sequences of at most T tokens, U units; a key for each sequence, unit and polarity."""

    activations: list[Array]
    """(T, U) of each sequence, NaN where a token does not count."""
    keys: Mapping[str, Array]
    """(S, U) by polarity."""
    config: Record

    @property
    def width(self) -> int:
        return int(self.activations[0].shape[1])

    def value(self, seq_id: int, unit: int, polarity: str) -> float:
        values = self.activations[seq_id][:, unit] * SIGN[polarity]
        return float(max(values[np.isfinite(values)], default=-np.inf))

    def top(self, unit: int, polarity: str, seq_ids: range) -> dict[str, list[int]]:
        """Kept sequences by split: each key once, the largest first, then the lowest seq_id."""
        found: dict[str, list[int]] = {}
        for split, count in zip(SPLITS, counts(self.config.top), strict=True):
            live = [s for s in seq_ids if split_of(s) == split and self.value(s, unit, polarity) > -np.inf]
            ranked = sorted(live, key=lambda s: (-self.value(s, unit, polarity), s))
            seen: set[int] = set()
            kept = []
            for s in ranked:
                key = int(self.keys[polarity][s, unit])
                if not self.config.distinct or key not in seen:
                    kept.append(s)
                seen.add(key)
            found[split] = kept[:count]
        return found

    def unit_sums(self, seq_ids: range) -> UnitSums:
        seen = np.concatenate([self.activations[s] for s in seq_ids]).astype(np.float64)  # (N, U)
        counted = ~np.isnan(seen)
        finite = np.isfinite(seen)
        powers = np.stack([np.where(finite, seen, 0) ** power for power in (1, 2, 3, 4)]).sum(axis=1)
        bins = np.searchsorted(INNER_EDGES, np.where(finite, seen, 0), side="right")
        histogram = np.zeros((self.width, BINS), np.int64)
        for unit in range(self.width):
            np.add.at(histogram[unit], (bins + (bins > ZERO_BIN))[finite[:, unit], unit], 1)
        return UnitSums(
            n_tokens=int(counted[:, 0].sum()),
            n_nonfinite=(counted & ~finite).sum(axis=0),
            minimum=np.where(finite, seen, np.inf).min(axis=0).astype(np.float32),
            maximum=np.where(finite, seen, -np.inf).max(axis=0).astype(np.float32),
            above=(finite & (seen > self.config.density_threshold)).sum(axis=0),
            power_sums=np.stack([powers, np.zeros_like(powers)], axis=1),
            histogram=histogram,
            top={polarity: self.top_sums(polarity, seq_ids) for polarity in self.keys},
            token_sums=np.ones((2, self.width)),
        )

    def top_sums(self, polarity: str, seq_ids: range) -> TopK:
        kept = counts(self.config.top)
        longest = max(len(values) for values in self.activations)
        shape = (self.width, sum(kept))
        values, ids = np.full(shape, -np.inf, np.float32), np.full(shape, NO_SEQUENCE)
        keys, vectors = np.zeros(shape, np.int64), np.full((*shape, longest), 1e9, np.float32)
        for unit in range(self.width):
            for number, chosen in enumerate(self.top(unit, polarity, seq_ids).values()):
                for slot, s in enumerate(reversed(chosen), start=sum(kept[:number])):
                    values[unit, slot], ids[unit, slot] = self.value(s, unit, polarity), s
                    keys[unit, slot] = self.keys[polarity][s, unit]
                    vectors[unit, slot, : len(self.activations[s])] = self.activations[s][:, unit]
        return TopK(values, ids, keys, vectors)

    def partial(self, seq_ids: range) -> dict[str, list[pa.Table]]:
        """The partial tables in pieces."""
        sums = self.unit_sums(seq_ids)
        kept = {int(s): self.activations[s].T for s in uniform_ids(self.config) if s in seq_ids}
        lengths = {s: len(self.activations[s]) for s in seq_ids}
        return {
            "partial_units": [unit_rows(MODULE, sums, 1)],
            "partial_tokens": list(token_rows(MODULE, sums, TokenTable(np.asarray([3, 8]), 1), np.asarray([2, 1]))),
            "partial_uniform": list(uniform_rows(MODULE, kept, self.width)),
            "partial_exemplars": list(exemplar_rows(MODULE, sums, lengths)),
        }

    def expected(self, unit: int, polarity: str, boundaries: list[float]) -> list[tuple[str, str, int, int]]:
        """(band, split, rank, seq_id) of the final rows of a unit, in their order."""
        everything = range(len(self.activations))
        best, config = self.top(unit, polarity, everything), self.config
        values = {s: self.value(s, unit, polarity) for s in everything}
        rows = [("top", split, rank, s) for split in SPLITS for rank, s in enumerate(best[split])]
        random = {
            split: [s for s in everything if split_of(s) == split][: getattr(config.random, split)] for split in SPLITS
        }
        for split in SPLITS:
            pool = [s for s in everything[: config.pool] if split_of(s) == split and values[s] > -np.inf]
            pool = [s for s in pool if s not in random[split] and s not in best[split]]
            bands = {s: sum(values[s] >= boundary for boundary in boundaries) for s in pool}
            chosen = []
            for band in range(len(boundaries) + 1):
                chosen += [s for s in pool if bands[s] == band][: getattr(config.per_band, split)]
            rows += [("quantile", split, rank, s) for rank, s in enumerate(chosen)]
        for split in SPLITS:
            usable = [s for s in random[split] if values[s] > -np.inf]
            rows += [("random", split, rank, s) for rank, s in enumerate(usable)]
        return rows


def make_world(
    kind: str = "random",
    sequences: int = 45,
    width: int = 6,
    seed: int = 0,
    polarities: str = "+-",
    **settings: Any,
) -> World:
    """Activations, of which `tied` ones take few values; positions that do not count; keys that many sequences share."""
    rng = np.random.default_rng(seed)
    activations = []
    for _ in range(sequences):
        shape = (int(rng.choice([3, 8, 8])), width)
        drawn = rng.integers(-2, 3, shape) if kind == "tied" else rng.standard_normal(shape) * 3
        values = drawn.astype(np.float32)
        values[0] = np.nan
        values[rng.random(len(values)) < 0.1] = np.nan
        activations.append(values)
    keys = {polarity: rng.integers(0, sequences // 3, (sequences, width)) for polarity in polarities}
    return World(activations, keys, SETTINGS.model_copy(update=settings))
