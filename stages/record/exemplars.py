"""The exemplars of a range of units, gathered from any number of partials, and their final rows; see `sequences`.

Shapes: U units, N uniformly kept sequences, M rows, T tokens, Q quantiles.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.schemas import EXEMPLARS
from stages.evidence import SPLITS
from stages.record.partial_tables import activation_rows
from stages.record.sequences import SIGNS, counts, pool_ids, random_ids, split_numbers
from stages.settings import Record

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

BANDS = ("top", "quantile", "random")
EXPONENT = np.uint32(0x7F800000)
"""Bits that are all 1 where a float32 is not finite."""
SIGNIFICANT = 24
"""Significant bits of a float32, the leading 1 that is not stored among them."""


class TopExemplars:
    """The top-k of units from `start` on over any number of partials.

    A sequence that is rejected is behind as many others, with distinct keys, as can be kept. It could not enter later
    either, so the result does not depend on the order of the partials.
    """

    def __init__(self, start: int, config: Record) -> None:
        self.start, self.config = start, config
        names = ("unit", "sign", "split", "rank", "seq_id", "key", "length")
        self.rows = pd.DataFrame({name: np.zeros(0, np.int64) for name in names} | {"value": np.zeros(0, np.float32)})
        """M rows by unit, sign, split and rank; units count from 0, and the value is the largest activation in the polarity."""
        self.vectors = np.zeros((0, 0), np.float32)
        """(M, T) their activations."""

    def add(self, partial: pa.Table) -> None:
        """Add rows of PARTIAL_EXEMPLARS."""
        rows = partial.drop_columns(["module", "activations"]).to_pandas()
        rows = rows.rename(columns={"index": "unit", "polarity": "sign"})
        rows["unit"], rows["split"] = rows["unit"] - self.start, split_numbers(rows["seq_id"])
        vectors, rows["length"] = activation_rows(partial["activations"])
        chosen = rows["sign"].isin([SIGNS[polarity] for polarity in self.config.polarities])
        vectors = stacked([self.vectors, vectors[chosen]])
        best = self._best(pd.concat([self.rows, rows[chosen]], ignore_index=True))
        self.rows, self.vectors = best.reset_index(drop=True), vectors[best.index]

    def _best(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Those that are kept, by unit, sign (+ first), split and rank."""
        group = ["unit", "sign", "split"]
        rows = rows.sort_values([*group, "value", "seq_id"], ascending=[True, False, True, False, True])
        if self.config.distinct:
            rows = rows.drop_duplicates([*group, "key"])
        rows = rows.assign(rank=rows.groupby(group).cumcount())
        return rows[rows["rank"] < np.asarray(counts(self.config.top))[rows["split"]]]


class UniformExemplars:
    """The uniformly kept sequences of the units start..stop."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self._found: dict[int, Floats] = {}

    def add(self, partial: pa.Table) -> None:
        """Add rows of PARTIAL_UNIFORM: all blocks that hold one of the units."""
        vectors, lengths = activation_rows(partial["activations"])
        columns = (partial[name].to_pylist() for name in ("index", "width", "seq_id"))
        for row, (first, width, seq_id) in enumerate(zip(*columns, strict=True)):
            values = vectors[row, : lengths[row]].reshape(-1, width)  # (T, width)
            if seq_id not in self._found:
                self._found[seq_id] = np.full((self.stop - self.start, len(values)), np.nan, np.float32)
            low, high = max(first, self.start), min(first + width, self.stop)
            self._found[seq_id][low - self.start : high - self.start] = values[:, low - first : high - first].T

    def gathered(self) -> tuple[pd.DataFrame, Floats]:
        """Unit, seq_id, split and length of U * N rows, by unit and seq_id, and their (U * N, T) activations."""
        units, seq_ids = self.stop - self.start, sorted(self._found)
        lengths = [self._found[seq_id].shape[1] for seq_id in seq_ids]
        vectors = np.full((units, len(seq_ids), max(lengths, default=0)), np.nan, np.float32)
        for number, seq_id in enumerate(seq_ids):
            vectors[:, number, : lengths[number]] = self._found[seq_id]
        rows = pd.DataFrame({"seq_id": seq_ids, "split": split_numbers(seq_ids), "length": lengths}, dtype=np.int64)
        rows = pd.DataFrame({"unit": np.arange(units)}).merge(rows, how="cross")
        return rows, vectors.reshape(len(rows), vectors.shape[2])


def final_rows(
    module: str, top: TopExemplars, uniform: UniformExemplars, boundaries: Mapping[str, Floats], config: Record
) -> pa.Table:
    """Rows of EXEMPLARS: by unit, polarity (+ first), band, split and rank.

    Args:
        boundaries: for each polarity the (U, Q) boundaries of its bands, rising, of x or of -x.
    """
    evenly, vectors = uniform.gathered()
    vectors = stacked([top.vectors, vectors])
    evenly.index += len(top.vectors)
    parts = [top.rows.assign(band=0)]
    for polarity, limits in boundaries.items():
        sign = SIGNS[polarity]
        rows = evenly.assign(sign=sign, value=peaks(vectors[evenly.index], sign)[1])
        rows = rows[rows["value"] > -np.inf]
        random = ranked(rows[rows["seq_id"].isin(random_ids(config))], "random")
        parts += [quantile_rows(rows, top.rows, limits, config), random]
    rows = pd.concat(parts)
    rows = rows.sort_values(["unit", "sign", "band", "split", "rank"], ascending=[True, False, True, True, True])
    return exemplar_table(module, top.start, rows, vectors[rows.index], config.activation_bits)


def quantile_rows(rows: pd.DataFrame, top: pd.DataFrame, boundaries: Floats, config: Record) -> pd.DataFrame:
    """The `quantile` exemplars of a polarity; within unit and split they rank by their band of values, then by seq_id."""
    names, chosen = ["unit", "sign", "seq_id"], rows[rows["seq_id"].isin(pool_ids(config))]
    chosen = chosen[~pd.MultiIndex.from_frame(chosen[names]).isin(pd.MultiIndex.from_frame(top[names]))]
    chosen = chosen.assign(between=(boundaries[chosen["unit"]] <= chosen["value"].to_numpy()[:, None]).sum(axis=1))
    limits = np.asarray(counts(config.per_band))[chosen["split"]]
    chosen = chosen[chosen.groupby(["unit", "split", "between"]).cumcount() < limits]
    return ranked(chosen.sort_values(["unit", "split", "between", "seq_id"]), "quantile")


def ranked(rows: pd.DataFrame, band: str) -> pd.DataFrame:
    """Rows of a band in the order of their ranks within unit and split, with these."""
    return rows.assign(band=BANDS.index(band), rank=rows.groupby(["unit", "split"]).cumcount())


def exemplar_table(module: str, start: int, rows: pd.DataFrame, vectors: Floats, bits: int) -> pa.Table:
    """Rows of EXEMPLARS in the order given.

    Args:
        start: the unit that is number 0 here.
        vectors: (M, T) activations.
        bits: significant bits that are left of them; peaks are those of the whole ones.
    """
    signs = rows["sign"].to_numpy(np.float32)
    lengths = rows["length"].to_numpy(np.int64)
    vectors = np.where(np.arange(vectors.shape[1]) < lengths[:, None], vectors, np.float32(np.nan))
    peak, value = peaks(vectors, signs[:, None])
    columns: dict[str, Any] = {
        "module": pa.repeat(module, len(rows)),
        "index": rows["unit"] + start,
        "polarity": np.where(signs > 0, "+", "-"),
        "band": np.asarray(BANDS)[rows["band"].to_numpy(np.int64)],
        "rank": rows["rank"],
        "seq_id": rows["seq_id"],
        "peak": peak,
        "max_activation": value * signs,
        "activations": activation_lists(vectors, lengths, bits),
        "split": np.asarray(SPLITS)[rows["split"].to_numpy(np.int64)],
    }
    arrays = {name: pa.array(column).cast(EXEMPLARS.schema.field(name).type) for name, column in columns.items()}
    return pa.table(arrays, schema=EXEMPLARS.schema)


def peaks(vectors: Floats, sign: Any) -> tuple[Ints, Floats]:
    """Position and value of the maximum of (M, T) activations times their sign, over the finite ones.

    Returns:
        The first position among equals, and -inf where no activation is finite.
    """
    if not vectors.size:
        return np.zeros(len(vectors), np.int64), np.full(len(vectors), -np.inf, np.float32)
    directed = np.where(np.isfinite(vectors), vectors * sign, np.float32(-np.inf))
    places = directed.argmax(axis=1)
    return places, directed[np.arange(len(vectors)), places]


def activation_lists(vectors: Floats, lengths: Ints, bits: int) -> pa.ListArray:
    """(M, T) activations as lists of the given lengths, rounded to some significant bits; what is not finite is null."""
    flat = rounded(vectors[np.arange(vectors.shape[1]) < lengths[:, None]], bits)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(flat, mask=~np.isfinite(flat)))


def rounded(values: Floats, bits: int) -> Floats:
    """Values rounded to some significant bits, half to even.

    The error is at most 2**-bits of a value (of 1e-38 for smaller ones). The bits left out are zero and compress well, and
    unlike float16 the result has the range of float32 (Zender 2016, Bit Grooming; Klöwer et al. 2021, Compressing
    atmospheric data into its real information content). Values that are not finite, or would not be, stay as they are.
    """
    if bits == SIGNIFICANT:
        return values
    whole, dropped = np.ascontiguousarray(values).view(np.uint32), np.uint32(SIGNIFICANT - bits)
    half = (np.uint32(1) << (dropped - np.uint32(1))) - np.uint32(1)
    cut = (whole + half + ((whole >> dropped) & np.uint32(1))) >> dropped << dropped
    stays = (whole & EXPONENT == EXPONENT) | (cut & EXPONENT == EXPONENT)
    return np.where(stays, whole, cut).view(np.float32)


def stacked(parts: Sequence[Floats]) -> Floats:
    """Matrices (M, T) one above the other, the narrower ones filled up with NaN."""
    width = max((part.shape[1] for part in parts), default=0)
    wide = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=np.nan) for part in parts]
    return np.concatenate([np.zeros((0, width), np.float32), *wide])
