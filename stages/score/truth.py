"""The true activations that simulations are held against, of the exemplars that are scored on.

Shapes: S sequences of some units, N tokens of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.execution.stage import Context
from pipeline.schemas import EXEMPLARS
from stages.score.statistics import Ints
from stages.settings import Record

BANDS = ("top", "random")
"""The exemplars that are scored on (Bills et al. 2023); of the others nobody knows with which probability they were kept."""
SEQUENCE = np.dtype([
    ("index", np.int64), ("seq_id", np.int64), ("is_report", np.bool_), ("is_top", np.bool_), ("is_random", np.bool_),
    ("true_start", np.int64), ("length", np.int64), ("shift", np.float64),
])  # fmt: skip
"""Of a kept sequence of a unit: whether it is on the report split and not on the select one; whether it is among the unit's
top ones, and among the uniformly drawn ones, which both can be; where its tokens begin; and the unit's mean activation."""


@dataclass(frozen=True)
class Truth:
    """The kept sequences of some units, each once, by unit and sequence."""

    sequences: npt.NDArray[np.void]
    """(S,) of SEQUENCE."""
    values: npt.NDArray[np.float32]
    """(N,) activations of all of them in the polarity; NaN where a token does not count."""

    @classmethod
    def of(
        cls,
        indices: Ints,
        seq_ids: Ints,
        is_report: npt.NDArray[np.bool_],
        bands: Ints,
        lengths: Ints,
        values: npt.NDArray[np.float32],
    ) -> "Truth":
        """The truth of some exemplars, of which a sequence can be several.

        Args:
            bands: of each exemplar, the number of its band in BANDS.
            values: the activations of one after the other.
        """
        order = np.lexsort((seq_ids, indices))
        index, seq_id = indices[order], seq_ids[order]
        first = np.append(True, (np.diff(index) != 0) | (np.diff(seq_id) != 0))[: len(order)]
        place, kept = np.cumsum(first) - 1, order[first]
        found = np.zeros(len(kept), SEQUENCE)
        found["index"], found["seq_id"], found["is_report"] = index[first], seq_id[first], is_report[kept]
        for number, band in enumerate(BANDS):
            found[f"is_{band}"] = np.bincount(place, bands[order] == number, len(kept)) > 0
        found["length"], found["true_start"] = lengths[kept], (np.cumsum(lengths) - lengths)[kept]
        counts = np.isfinite(values)
        unit = np.repeat(np.searchsorted(np.unique(indices), indices), lengths)
        total, number_of = np.bincount(unit, np.where(counts, values, 0)), np.bincount(unit, counts)
        mean = total / np.maximum(number_of, 1)
        found["shift"] = mean[np.searchsorted(np.unique(indices), found["index"])] if len(found) else 0
        return cls(found, values)


def true_activations(
    context: Context, module: str, indices: Sequence[int], splits: Sequence[str], polarity: str
) -> Truth:
    """That of some units of a run.

    Raises:
        PermissionError: the stage does not own one of the splits.
    """
    context.permit(splits)
    tables = context.tables
    where = tables.is_unit(module, indices, polarity) & pc.field("split").isin(list(splits))
    columns = ["index", "band", "split", "seq_id", "activations"]
    rows = tables.read(EXEMPLARS, where & pc.field("band").isin(list(BANDS)), columns)
    lists = rows["activations"].combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    position = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    values[position < context.config[Record].skip_positions] = np.nan
    bands = pc.index_in(rows["band"], pa.array(BANDS)).to_numpy().astype(np.int64)
    indices_of, seq_ids = (rows[name].to_numpy().astype(np.int64) for name in ("index", "seq_id"))
    is_report = pc.equal(rows["split"], "report").to_numpy()
    return Truth.of(indices_of, seq_ids, is_report, bands, lengths, values if polarity == "+" else -values)
