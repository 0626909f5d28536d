"""Exemplars of a range of units: the best of the partials, and the rows of the final table."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import Record
from pipeline.evidence import SPLITS
from pipeline.schemas import EXEMPLARS
from stages.record.selection import counts, pool_ids, random_ids, split_numbers

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """N (unit, sequence) pairs, of one polarity."""

    index: Ints
    seq_id: Ints
    split: Ints
    """(N,) positions in SPLITS."""
    value: npt.NDArray[np.float32]
    """(N,) maximum in the polarity, over the counted positions."""
    peak: Ints
    activations: pa.ListArray

    def take(self, chosen: npt.NDArray[Any]) -> "Kept":
        """Some of the pairs, by position or by mask."""
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        activations = self.activations.take(pa.array(rows))
        return Kept(
            self.index[rows], self.seq_id[rows], self.split[rows], self.value[rows], self.peak[rows], activations
        )

    def join(self, other: "Kept") -> "Kept":
        return Kept(
            np.concatenate([self.index, other.index]),
            np.concatenate([self.seq_id, other.seq_id]),
            np.concatenate([self.split, other.split]),
            np.concatenate([self.value, other.value]),
            np.concatenate([self.peak, other.peak]),
            pa.concat_arrays([self.activations, other.activations]),
        )


def read(rows: pa.Table, config: Record, polarity: str) -> Kept:
    """Pairs from rows of PARTIAL_EXEMPLARS, without those that have no finite activation at a counted position."""
    lists = rows["activations"].combine_chunks()
    activations = pa.concat_arrays(lists.chunks) if isinstance(lists, pa.ChunkedArray) else lists
    sizes = activations.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    flat = activations.flatten().to_numpy(zero_copy_only=False)
    padded = np.full((len(sizes), int(sizes.max(initial=1))), -np.inf, np.float32)
    within = np.arange(padded.shape[1]) < sizes[:, None]
    padded[within] = flat if polarity == "+" else -flat
    padded[:, : config.skip_positions] = -np.inf
    padded[~np.isfinite(padded)] = -np.inf
    peak = padded.argmax(axis=1)
    value = padded[np.arange(len(peak)), peak]
    seq_ids = rows["seq_id"].to_numpy()
    kept = Kept(rows["index"].to_numpy().astype(np.int64), seq_ids, split_numbers(seq_ids), value, peak, activations)
    return kept.take(value > -np.inf)


def best(kept: Kept, config: Record) -> Kept:
    """The `top` exemplars among the pairs, by unit, split and rank."""
    return _first(kept, [kept.index, kept.split], [-kept.value, kept.seq_id], counts(config.top))


def random_rows(uniform: Kept, config: Record) -> Kept:
    """The `random` exemplars among the uniformly kept pairs."""
    chosen = uniform.take(np.isin(uniform.seq_id, random_ids(config)))
    return chosen.take(np.lexsort([chosen.seq_id, chosen.split, chosen.index]))


def quantile_rows(uniform: Kept, top: Kept, boundaries: npt.NDArray[np.float32], start: int, config: Record) -> Kept:
    """The `quantile` exemplars: from the lowest band to the highest, the first of each split in seq_id order.

    Args:
        boundaries: (U, Q) quantile boundaries of the units from `start` on.
    """
    taken = np.isin(_pair_keys(uniform), _pair_keys(top))
    pool = uniform.take(np.isin(uniform.seq_id, pool_ids(config)) & ~taken)
    band = (boundaries[pool.index - start] <= pool.value[:, None]).sum(axis=1)
    return _first(pool, [pool.index, pool.split, band], [pool.seq_id], counts(config.per_band))


def final_rows(module: str, polarity: str, bands: dict[str, Kept]) -> pa.Table:
    """Rows of EXEMPLARS: by unit, then the bands as given, then split and rank; pairs come in the order of rank."""
    tables = [_band_rows(module, polarity, name, kept) for name, kept in bands.items()]
    number = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    joined = pa.concat_tables(tables)
    index = joined["index"].to_numpy()
    return joined.take(pa.array(np.lexsort([number, index]))).combine_chunks()


def _band_rows(module: str, polarity: str, band: str, kept: Kept) -> pa.Table:
    count = len(kept.index)
    columns = {
        "module": pa.repeat(module, count),
        "index": kept.index.astype(np.int32),
        "polarity": pa.repeat(polarity, count),
        "band": pa.repeat(band, count),
        "rank": _rank([kept.index, kept.split]).astype(np.int32),
        "seq_id": kept.seq_id,
        "peak": kept.peak.astype(np.int32),
        "max_activation": kept.value if polarity == "+" else -kept.value,
        "activations": kept.activations,
        "split": pa.array(np.asarray(SPLITS)[kept.split].tolist(), pa.string()),
    }
    return pa.table(columns, schema=EXEMPLARS.schema)


def _first(kept: Kept, groups: list[Ints], order: list[npt.NDArray[Any]], limits: tuple[int, ...]) -> Kept:
    """The first pairs of each group in the given order, as many as their split's limit; sorted by group and order."""
    rows = np.lexsort([*order[::-1], *groups[::-1]])
    rank = _rank([group[rows] for group in groups])
    return kept.take(rows[rank < np.asarray(limits)[kept.split[rows]]])


def _rank(groups: list[Ints]) -> Ints:
    """The place of each row within its group of consecutive rows, from 0 on."""
    count = len(groups[0])
    changed = np.ones(count, bool)
    changed[1:] = np.any([group[1:] != group[:-1] for group in groups], axis=0)
    firsts = np.flatnonzero(changed)
    return np.arange(count) - np.repeat(firsts, np.diff(firsts, append=count))


def _pair_keys(kept: Kept) -> Ints:
    """One number for each (unit, sequence)."""
    return (kept.index << 40) | kept.seq_id
