"""The final rows of the exemplars of a range of units.

Shapes: U units, P polarities, K kept sequences, N uniformly kept sequences, T tokens, Q quantiles.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from pipeline.schemas import EXEMPLARS
from stages.evidence import SPLITS
from stages.record.kept import counts, pool_ids, random_ids
from stages.record.partials import SIGNS, floats
from stages.record.rounding import rounded
from stages.record.selection import split_numbers
from stages.record.strongest import Strongest
from stages.settings import Record

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Uniform:
    """The uniformly kept sequences of the units start..stop, gathered from the partials."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._found: dict[int, Floats] = {}

    def add(self, rows: pa.Table) -> None:
        """Take rows of PARTIAL_UNIFORM in: all blocks that hold one of the units."""
        flat, starts = floats(rows["activations"])
        columns = (rows[name].to_pylist() for name in ("index", "width", "seq_id"))
        for row, (first, width, seq_id) in enumerate(zip(*columns, strict=True)):
            values = flat[starts[row] : starts[row + 1]].reshape(-1, width)  # (T, width)
            if seq_id not in self._found:
                self._found[seq_id] = np.full((self.stop - self.start, len(values)), np.nan, np.float32)
            low, high = max(first, self.start), min(first + width, self.stop)
            self._found[seq_id][low - self.start : high - self.start] = values[:, low - first : high - first].T

    def gathered(self) -> "Gathered":
        """All of them, by rising seq_id."""
        seq_ids = np.asarray(sorted(self._found), np.int64)
        lengths = np.asarray([self._found[seq_id].shape[1] for seq_id in seq_ids.tolist()], np.int64)
        shape = (self.stop - self.start, len(seq_ids), int(lengths.max(initial=0)))
        vectors = np.full(shape, np.nan, np.float32)
        for number, seq_id in enumerate(seq_ids.tolist()):
            vectors[:, number, : lengths[number]] = self._found[seq_id]
        return Gathered(seq_ids, lengths, vectors)


@dataclass(frozen=True)
class Gathered:
    """Uniformly kept sequences by rising seq_id."""

    seq_ids: Ints
    """(N,)"""
    lengths: Ints
    """(N,) tokens"""
    vectors: Floats
    """(U, N, T), NaN where there is no token or it does not count."""


@dataclass(frozen=True)
class Chosen:
    """M rows of one polarity and band, in any order."""

    polarity: str
    band: str
    units: Ints
    """(M,) from 0 on."""
    splits: Ints
    """(M,) positions in SPLITS."""
    ranks: Ints
    seq_ids: Ints
    lengths: Ints
    vectors: Floats
    """(M, T)"""


def top_rows(strongest: Strongest, polarity: str) -> Chosen:
    """The `top` exemplars, from sorted ones."""
    number = strongest.polarities.index(polarity)
    units, slots = np.nonzero(strongest.values[:, number] > -np.inf)
    splits = np.searchsorted(strongest.first_slots, slots, side="right") - 1
    chosen = (units, number, slots)
    return Chosen(
        polarity, "top", units, splits, slots - strongest.first_slots[splits],
        strongest.seq_ids[chosen], strongest.lengths[chosen], strongest.vectors[chosen],
    )  # fmt: skip


def uniform_rows(uniform: Gathered, top: Chosen, boundaries: Floats, config: Record) -> list[Chosen]:
    """The `quantile` and `random` exemplars of a polarity.

    Args:
        boundaries: (U, Q) boundaries of the bands, rising, of x or of -x as the polarity says.
    """
    units, kept, tokens = uniform.vectors.shape
    flat = uniform.vectors.reshape(units * kept, tokens)
    values = peaks(flat, np.full(len(flat), SIGNS[top.polarity], np.float32))[1].reshape(units, kept)
    random = np.isin(uniform.seq_ids, random_ids(config)) & (values > -np.inf)
    pool = np.isin(uniform.seq_ids, pool_ids(config)) & (values > -np.inf)
    pool[_among(top, uniform.seq_ids, units)] = False
    bands = (boundaries[:, None, :] <= values[:, :, None]).sum(axis=2)
    splits = split_numbers(uniform.seq_ids)
    quantile = np.zeros_like(pool)
    for split, limit in enumerate(counts(config.per_band)):
        for band in range(boundaries.shape[1] + 1):
            group = pool & (splits == split) & (bands == band)
            quantile |= group & (group.cumsum(axis=1) <= limit)
    return [
        _ranked(top.polarity, "quantile", uniform, quantile, bands, splits),
        _ranked(top.polarity, "random", uniform, random, np.zeros_like(bands), splits),
    ]


def _among(top: Chosen, seq_ids: Ints, units: int) -> npt.NDArray[np.bool_]:
    """(U, N) whether a sequence is one of the unit's `top` exemplars."""
    found = np.zeros((units, len(seq_ids) + 1), bool)
    places = np.searchsorted(seq_ids, top.seq_ids)
    same = np.append(seq_ids, -1)[places] == top.seq_ids
    found[top.units[same], places[same]] = True
    return found[:, :-1]


def _ranked(
    polarity: str, band: str, uniform: Gathered, chosen: npt.NDArray[np.bool_], bands: Ints, splits: Ints
) -> Chosen:
    """The chosen ones of (U, N) sequences; within unit and split they rank by their band, then by seq_id."""
    units, places = np.nonzero(chosen)
    order = np.lexsort([places, bands[units, places], splits[places], units])
    units, places = units[order], places[order]
    changed = np.flatnonzero(np.diff(units * len(SPLITS) + splits[places], prepend=-1))
    ranks = np.arange(len(units)) - np.repeat(changed, np.diff(changed, append=len(units)))
    return Chosen(
        polarity, band, units, splits[places], ranks,
        uniform.seq_ids[places], uniform.lengths[places], uniform.vectors[units, places],
    )  # fmt: skip


def final_rows(module: str, start: int, parts: list[Chosen], bits: int) -> pa.Table:
    """Rows of EXEMPLARS: by unit, then polarity and band in the order of the parts, then split and rank.

    Args:
        bits: significant bits of their activations; peaks are those of the whole ones.
    """
    if not parts:
        return EXEMPLARS.schema.empty_table()
    sizes = [len(part.units) for part in parts]
    number = np.repeat(np.arange(len(parts)), sizes)
    units, splits, ranks, seq_ids, lengths = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("units", "splits", "ranks", "seq_ids", "lengths")
    )
    order = np.lexsort([ranks, splits, number, units])
    vectors = np.full((len(order), max(part.vectors.shape[1] for part in parts)), np.nan, np.float32)
    for part, rows in zip(parts, np.split(np.argsort(order), np.cumsum(sizes)[:-1]), strict=True):
        vectors[rows, : part.vectors.shape[1]] = part.vectors
    lengths, number = lengths[order], number[order]
    vectors[np.arange(vectors.shape[1]) >= lengths[:, None]] = np.nan
    signs = np.asarray([SIGNS[part.polarity] for part in parts], np.float32)[number]
    peak, value = peaks(vectors, signs)
    columns = {
        "module": pa.repeat(module, len(order)),
        "index": (units[order] + start).astype(np.int32),
        "polarity": _texts([part.polarity for part in parts], number),
        "band": _texts([part.band for part in parts], number),
        "rank": ranks[order].astype(np.int32),
        "seq_id": seq_ids[order],
        "peak": peak.astype(np.int32),
        "max_activation": value * signs,
        "activations": _lists(rounded(vectors, bits), lengths),
        "split": _texts(list(SPLITS), splits[order]),
    }
    return pa.table(columns, schema=EXEMPLARS.schema)


def peaks(vectors: Floats, signs: Floats) -> tuple[Ints, Floats]:
    """Position and value of the maximum of (M, T) activations times their (M,) signs, over the finite ones.

    Returns:
        The first position among equals, and -inf where no activation is finite.
    """
    places, values = np.zeros(len(vectors), np.int64), np.full(len(vectors), -np.inf, np.float32)
    _find_peaks(vectors, signs, places, values)
    return places, values


@njit(cache=True, nogil=True)
def _find_peaks(vectors, signs, places, values):  # type: ignore[no-untyped-def]
    for row in range(vectors.shape[0]):
        for t in range(vectors.shape[1]):
            value = vectors[row, t] * signs[row]
            if value > values[row] and value < np.inf:
                values[row], places[row] = value, t


def _lists(vectors: Floats, lengths: Ints) -> pa.ListArray:
    """(M, T) activations as lists of the given lengths; what is not finite is null."""
    within = np.arange(vectors.shape[1]) < lengths[:, None]
    flat = vectors.ravel() if within.all() else vectors[within]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(flat, mask=~np.isfinite(flat)))


def _texts(texts: list[str], numbers: Ints) -> pa.Array:
    """A column of texts given by their positions in a list."""
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int8)), pa.array(texts, pa.string())).cast(
        pa.string()
    )
