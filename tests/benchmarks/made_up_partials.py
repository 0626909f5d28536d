"""Partials of made-up activations: unless told otherwise, as scans of 1,024 sequences of 64 tokens with the default settings leave them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
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
TOKEN_IDS = np.arange(2900)
"""As many tokens as 1 GiB of sums holds for 46,080 units."""
AT_ONCE = 512
"""Units made up at a time."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MadeUpScan:
    """What the parts of a corpus are scanned for."""

    record: Record = field(default_factory=Record)
    sequences: int = 1024
    """Of each part."""
    tokens: int = 64
    """Of each sequence."""
    token_ids: int = len(TOKEN_IDS)
    """Tokens whose mean activation is recorded."""

    def rows(self, table: str, module: str, units: int, part: int) -> Iterator[pa.Table]:
        """The rows of one partial table about one module, AT_ONCE units at a time."""
        first = part * self.sequences
        lengths = dict.fromkeys(range(first, first + self.sequences), self.tokens)
        counted = np.random.default_rng(part).integers(1, 40, self.token_ids)
        for start in range(0, units, AT_ONCE):
            width, rng = min(AT_ONCE, units - start), np.random.default_rng([part, start])
            sums = self._sums(width, first, rng, table)
            if table == PARTIAL_UNITS.name:
                rows = iter([unit_rows(module, sums, 3)])
            elif table == PARTIAL_TOKENS.name:
                rows = token_rows(module, sums, TokenTable(np.arange(self.token_ids), 3), counted)
            elif table == PARTIAL_UNIFORM.name:
                kept = [seq_id for seq_id in uniform_ids(self.record).tolist() if seq_id in lengths]
                drawn = {seq_id: rng.standard_normal((self.tokens, width), np.float32).T for seq_id in kept}
                rows = uniform_rows(module, drawn, width)
            else:
                rows = exemplar_rows(module, sums, lengths)
            for piece in rows:
                index = pa.array(piece["index"].to_numpy() + np.int32(start))
                yield piece.set_column(1, piece.schema.field("index"), index)

    def _sums(self, units: int, first: int, rng: np.random.Generator, table: str) -> UnitSums:
        """Only what the table holds is large; `first` is the part's first seq_id."""
        tokens = self.token_ids if table == PARTIAL_TOKENS.name else 0
        slots = 1 if table == PARTIAL_EXEMPLARS.name else 0
        return UnitSums(
            n_tokens=self.sequences * (self.tokens - 1),
            n_nonfinite=np.zeros(units, np.int64),
            minimum=np.full(units, -9, np.float32),
            maximum=np.full(units, 9, np.float32),
            above=np.full(units, self.sequences * self.tokens // 2),
            power_sums=rng.standard_normal((4, 2, units)),
            histogram=rng.poisson(250, (units, BINS)),
            top={polarity: self._top(units, first, SIGNS[polarity], rng, slots) for polarity in self.record.polarities},
            token_sums=np.round(rng.standard_normal((tokens, units)) * 2**32) / 2**30,
        )

    def _top(self, units: int, first: int, sign: int, rng: np.random.Generator, wanted: int) -> TopK:
        """The strongest sequences of each split, or none."""
        kept = [count * wanted for count in counts(self.record.top)]
        everything = np.arange(first, first + self.sequences)
        splits = split_numbers(everything)
        seq_ids = np.concatenate(
            [draw(everything[splits == split], units, count, rng) for split, count in enumerate(kept)], 1
        )
        vectors = rng.standard_normal((units, sum(kept), self.tokens), dtype=np.float32)
        values = (4 + rng.exponential(size=vectors.shape[:2])).astype(np.float32)
        places = rng.integers(1, self.tokens, (*vectors.shape[:2], 1))
        np.put_along_axis(vectors, places, sign * values[..., None], axis=2)
        vectors[..., 0] = np.nan
        return TopK(values, seq_ids, rng.integers(0, 2**62, seq_ids.shape), vectors)


def write_partials(folder: Path, units: int, parts: int) -> None:
    """Publish the partial tables of a number of parts of a corpus."""
    tables, scan = Tables(folder), MadeUpScan()
    for part in range(parts):
        for table in PARTIALS:
            rows = scan.rows(table.name, MODULE, units, part)
            publish(tables.file(table, f"part-{part:05d}"), rows, table, {})


def draw(seq_ids: Array, units: int, count: int, rng: np.random.Generator) -> Array:
    """(units, count) of the sequences, none twice for a unit."""
    return seq_ids[rng.random((units, len(seq_ids))).argpartition(count, axis=1)[:, :count]]
