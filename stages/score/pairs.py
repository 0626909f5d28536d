"""Simulated sequences beside their true activations: all that scores are computed from.

Shapes: R rows, each a simulated sequence; T tokens of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.score.statistics import Floats, Ints
from stages.score.truth import Truth

CONTROLS = ("", "shuffled", "constant", "top_token", "lookup", "inverted")
"""What is simulated: an explanation itself, and controls beside it. Rows hold their places in this list."""
COLUMNS = (
    "index",
    "candidate",
    "control",
    "source",
    "source_candidate",
    "seq_id",
    "split",
    "expected",
    "coverage",
    "model",
    "status",
    "error",
)
"""What is read of the simulations table."""
ROW = np.dtype([
    ("index", np.int64), ("candidate", np.int64), ("control", np.int64), ("source", np.int64), ("source_candidate", np.int64),
    ("is_report", np.bool_), ("is_top", np.bool_), ("is_random", np.bool_),
    ("true_start", np.int64), ("start", np.int64), ("length", np.int64), ("shift", np.float64), ("coverage", np.float64),
    ("sums", np.float64, (6,)),
])  # fmt: skip
"""Of a row: its keys, with a candidate of -1 for a control; whether it is on the report split and not on the select one; whether
its sequence is among the unit's top ones, and among the uniformly drawn ones, which both can be; where its tokens begin; the
unit's mean activation; the mean coverage; and sums as of `sum_kernels.row_sums`."""


@dataclass(frozen=True)
class Pairs:
    """Simulated sequences beside their true activations."""

    rows: npt.NDArray[np.void]
    """(R,) of ROW."""
    true: npt.NDArray[np.float32]
    """Activations of all tokens, NaN where one does not count; a row's begin at its `true_start`."""
    expected: npt.NDArray[np.float32]
    """Expected activations; a row's begin at its `start`."""

    def where(self, wanted: npt.ArrayLike | slice) -> "Pairs":
        """The rows for which (R,) `wanted` holds."""
        return Pairs(
            self.rows[wanted if isinstance(wanted, slice) else np.asarray(wanted, bool)], self.true, self.expected
        )

    def by_unit(self, indices: Sequence[int]) -> list["Pairs"]:
        """The rows of each of some units; rows are ordered by unit, control and source."""
        ends = np.searchsorted(np.ascontiguousarray(self.rows["index"]), np.asarray(indices)[:, None] + [0, 1])
        return [self.where(slice(*between)) for between in ends.tolist()]

    @property
    def correlation(self) -> float:
        """Pearson correlation over all tokens of the rows; NaN where it is undefined."""
        from stages.score.sum_kernels import correlation_of

        return float(correlation_of(*self.rows["sums"].sum(axis=0).tolist()))

    def correlations(self, groups: Ints, weights: Floats | None = None) -> tuple[Ints, Floats]:
        """The groups of the rows, rising, and the correlation over each; NaN where it is undefined.

        Args:
            weights: (R,) of the rows; all alike unless given.
        """
        from stages.score.sum_kernels import grouped_correlations

        sums, every = np.ascontiguousarray(self.rows["sums"]), np.ascontiguousarray(groups)
        found: tuple[Ints, Floats] = grouped_correlations(
            sums, every, np.ones(len(every)) if weights is None else weights
        )
        return found

    @cached_property
    def tokens(self) -> tuple[Floats, Floats, Ints]:
        """True and expected values of the tokens that count, and the number of each one's row."""
        from stages.score.sum_kernels import tokens_of

        starts = (np.ascontiguousarray(self.rows[name]) for name in ("true_start", "start", "length"))
        found: tuple[Floats, Floats, Ints] = tokens_of(self.true, self.expected, *starts)
        return found


def pair(simulations: pa.Table, truth: Truth) -> Pairs:
    """Join the successful rows of `simulations` with the truth by unit, sequence and split.

    Raises:
        ValueError: a simulation has another length than its sequence.
    """
    from stages.score.sum_kernels import row_sums

    is_done = pc.equal(simulations["status"], "ok")
    done = simulations if pc.all(is_done).as_py() else simulations.filter(is_done)
    lists = _one(done["expected"])
    expected, lengths = _floats(lists), lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    rows = _keys(done)
    rows["length"], rows["start"] = lengths, np.cumsum(lengths) - lengths
    rows["coverage"] = _mean_coverage(done)
    known = truth.sequences
    place = _places(known["index"], known["seq_id"], rows["index"], done["seq_id"].to_numpy())
    kept = place >= 0
    kept[kept] &= known["is_report"][place[kept]] == rows["is_report"][kept]
    rows, of = rows[kept], known[place[kept]]
    for name in ("is_top", "is_random", "true_start", "shift"):
        rows[name] = of[name]
    if wrong := np.flatnonzero(rows["length"] != of["length"]).tolist():
        index, seq_id = of["index"][wrong[0]], of["seq_id"][wrong[0]]
        raise ValueError(f"unit {index}, sequence {seq_id}: as many expected activations as tokens are needed")
    rows = rows[np.lexsort((rows["source"], rows["control"], rows["index"]))]
    columns = (np.ascontiguousarray(rows[name]) for name in ("true_start", "start", "length", "shift"))
    rows["sums"] = row_sums(truth.values, expected, *columns)
    return Pairs(rows, truth.values, expected)


def simulation_errors(simulations: pa.Table) -> dict[tuple[int, int], str]:
    """The first error of each explanation that could not be simulated on every sequence, by (index, candidate)."""
    failed = (pc.field("status") == "failed") & (pc.field("control") == "")
    rows = simulations.filter(failed).select(["index", "candidate", "error"]).to_pylist()
    return {(row["index"], row["candidate"]): row["error"] for row in reversed(rows)}


def _keys(done: pa.Table) -> npt.NDArray[np.void]:
    """Rows of ROW with their keys alone."""
    rows = np.zeros(done.num_rows, ROW)
    for name in ("index", "source", "source_candidate"):
        rows[name] = done[name].to_numpy()
    words = pc.index_in(done["control"], pa.array(CONTROLS))
    rows["control"] = pc.fill_null(
        words, len(CONTROLS)
    ).to_numpy()  # one that is not known here is no explanation either
    rows["candidate"] = np.where(rows["control"] == 0, pc.fill_null(done["candidate"], 0).to_numpy(), -1)
    rows["is_report"] = pc.equal(done["split"], "report").to_numpy()
    return rows


def _places(indices: Ints, seq_ids: Ints, wanted: Ints, wanted_ids: Ints) -> Ints:
    """Where (index, seq_id) of each wanted pair is among the known ones, which rise; -1 for one that is not."""
    if not len(indices) or not len(wanted):
        return np.full(len(wanted), -1)
    step = int(max(seq_ids.max(), wanted_ids.max())) + 1
    known, asked = indices * step + seq_ids, wanted * step + wanted_ids
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[place] == asked, place, -1)


def _mean_coverage(done: pa.Table) -> Floats:
    """(R,) of the explanations themselves; NaN of controls, which nobody asks for."""
    found = np.full(done.num_rows, np.nan)
    own = pc.equal(done["control"], "").to_numpy()
    lists = _one(done["coverage"].filter(pa.array(own)))
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.concatenate([[0.0], np.cumsum(_floats(lists), dtype=np.float64)])[np.cumsum(lengths)]
    with np.errstate(invalid="ignore"):
        found[own] = np.diff(ends, prepend=0.0) / lengths
    return found


def _one(column: pa.ChunkedArray) -> pa.ListArray:
    return column.combine_chunks()


def _floats(lists: pa.ListArray) -> npt.NDArray[np.float32]:
    return lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
