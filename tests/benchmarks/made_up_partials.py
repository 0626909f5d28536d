"""Partials of made-up activations, as a scan of 1,024 sequences of 64 tokens with the default settings leaves them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.record.backends.contract import TopK, UnitSums
from stages.record.partial_tables import (
    PARTIAL_EXEMPLARS,
    PARTIAL_TOKENS,
    PARTIAL_UNIFORM,
    PARTIAL_UNITS,
    PARTIALS,
    exemplar_rows,
    token_rows,
    uniform_rows,
    unit_rows,
)
from stages.record.recorded_batch import TokenTable
from stages.record.sequences import SIGNS, counts, split_numbers, uniform_ids
from stages.record.unit_statistics import BINS
from stages.settings import Record

MODULE = "layers.0.mlp"
SEQUENCES, TOKENS = 1024, 64
TOKEN_IDS = np.arange(2900)
"""As many tokens as 1 GiB of sums holds for 46,080 units."""
AT_ONCE = 512
"""Units made up at a time."""

Array = npt.NDArray[Any]


def write_partials(folder: Path, units: int, parts: int) -> None:
    """Publish the partial tables of a number of parts of a corpus."""
    tables = Tables(folder)
    for part in range(parts):
        for table in PARTIALS:
            name = f"part-{part:05d}"
            rows = pieces(table.name, units, part)
            publish(tables.file(table, name), rows, table, {})


def pieces(table: str, units: int, part: int) -> Iterator[pa.Table]:
    """The rows of one partial table, AT_ONCE units at a time."""
    first = part * SEQUENCES
    lengths = dict.fromkeys(range(first, first + SEQUENCES), TOKENS)
    counted = np.random.default_rng(part).integers(1, 40, len(TOKEN_IDS))
    for start in range(0, units, AT_ONCE):
        width, rng = min(AT_ONCE, units - start), np.random.default_rng([part, start])
        sums = make_up(width, first, rng, table)
        if table == PARTIAL_UNITS.name:
            rows = iter([unit_rows(MODULE, sums, 3)])
        elif table == PARTIAL_TOKENS.name:
            rows = token_rows(MODULE, sums, TokenTable(TOKEN_IDS, 3), counted)
        elif table == PARTIAL_UNIFORM.name:
            kept = [seq_id for seq_id in uniform_ids(Record()).tolist() if seq_id in lengths]
            drawn = {seq_id: rng.standard_normal((TOKENS, width), np.float32).T for seq_id in kept}
            rows = uniform_rows(MODULE, drawn, width)
        else:
            rows = exemplar_rows(MODULE, sums, lengths)
        for piece in rows:
            index = pa.array(piece["index"].to_numpy() + np.int32(start))
            yield piece.set_column(1, piece.schema.field("index"), index)


def make_up(units: int, first: int, rng: np.random.Generator, table: str) -> UnitSums:
    """Only what the table holds is large; `first` is the part's first seq_id."""
    tokens = len(TOKEN_IDS) if table == PARTIAL_TOKENS.name else 0
    slots = 1 if table == PARTIAL_EXEMPLARS.name else 0
    return UnitSums(
        n_tokens=SEQUENCES * (TOKENS - 1),
        n_nonfinite=np.zeros(units, np.int64),
        minimum=np.full(units, -9, np.float32),
        maximum=np.full(units, 9, np.float32),
        above=np.full(units, SEQUENCES * TOKENS // 2),
        power_sums=rng.standard_normal((4, 2, units)),
        histogram=rng.poisson(250, (units, BINS)),
        top={polarity: top(units, first, sign, rng, slots) for polarity, sign in SIGNS.items()},
        token_sums=np.round(rng.standard_normal((tokens, units)) * 2**32) / 2**30,
    )


def top(units: int, first: int, sign: int, rng: np.random.Generator, wanted: int) -> TopK:
    """The strongest sequences of each split, or none."""
    kept = [count * wanted for count in counts(Record().top)]
    everything = np.arange(first, first + SEQUENCES)
    splits = split_numbers(everything)
    seq_ids = np.concatenate(
        [draw(everything[splits == split], units, count, rng) for split, count in enumerate(kept)], 1
    )
    vectors = rng.standard_normal((units, sum(kept), TOKENS), dtype=np.float32)
    values = (4 + rng.exponential(size=vectors.shape[:2])).astype(np.float32)
    places = rng.integers(1, TOKENS, (*vectors.shape[:2], 1))
    np.put_along_axis(vectors, places, sign * values[..., None], axis=2)
    vectors[..., 0] = np.nan
    return TopK(values, seq_ids, rng.integers(0, 2**62, seq_ids.shape), vectors)


def draw(seq_ids: Array, units: int, count: int, rng: np.random.Generator) -> Array:
    """(units, count) of the sequences, none twice for a unit."""
    return seq_ids[rng.random((units, len(seq_ids))).argpartition(count, axis=1)[:, :count]]
