"""Simulated sequences beside their true activations: all that scores are computed from.

Shapes: R rows, each a simulated sequence; T tokens of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stages.evidence import Exemplar
from stages.score.statistics import Floats, Ints, pearson

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
    "status",
    "error",
)
"""What is read of the simulations table."""
BANDS = ("top", "random")
"""The exemplars that are scored on (Bills et al. 2023)."""
ROW = np.dtype([
    ("index", np.int64), ("candidate", np.int64), ("control", np.int64), ("source", np.int64), ("source_candidate", np.int64),
    ("is_report", np.bool_), ("is_top", np.bool_), ("is_random", np.bool_),
    ("true_start", np.int64), ("start", np.int64), ("length", np.int64), ("shift", np.float64), ("coverage", np.float64),
    ("sums", np.float64, (6,)),
])  # fmt: skip
"""Of a row: its keys, with a candidate of -1 for a control; whether it is on the report split and not on the select one; whether
its sequence is among the unit's top ones, and among the uniformly drawn ones, which both can be; where its tokens begin; the
unit's mean activation; the mean coverage; and sums as of `kernels.row_sums`."""


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

    def of_unit(self, index: int) -> "Pairs":
        """The rows of one unit; rows are by unit."""
        first, last = np.searchsorted(self.rows["index"], [index, index + 1])
        return self.where(slice(int(first), int(last)))

    @property
    def correlation(self) -> float:
        """Pearson correlation over all tokens of the rows; NaN where it is undefined."""
        return float(pearson(self.rows["sums"].sum(axis=0)))

    def correlations(self, groups: Ints, weights: Floats | None = None) -> tuple[Ints, Floats]:
        """The groups of the rows, rising, and the correlation over each; NaN where it is undefined.

        Args:
            weights: (R,) of the rows; all alike unless given.
        """
        order = np.argsort(groups, kind="stable")
        found, starts = np.unique(groups[order], return_index=True)
        sums = self.rows["sums"] if weights is None else self.rows["sums"] * weights[:, None]
        return found, pearson(np.add.reduceat(sums[order], starts) if len(found) else np.zeros((0, 6)))

    def tokens(self) -> tuple[Floats, Floats, Ints]:
        """True and expected values of the tokens that count, and the number of each one's row."""
        from stages.score.kernels import tokens_of

        starts = (np.ascontiguousarray(self.rows[name]) for name in ("true_start", "start", "length"))
        found: tuple[Floats, Floats, Ints] = tokens_of(self.true, self.expected, *starts)
        return found


def pair(simulations: pa.Table, exemplars: Mapping[int, Sequence[Exemplar]]) -> Pairs:
    """Join the successful rows of `simulations` with the truth by unit, sequence and split.

    Only BANDS are scored on; a sequence kept for both reasons counts once.

    Raises:
        ValueError: a simulation has another length than its sequence.
    """
    from stages.score.kernels import row_sums

    done = simulations.filter(pc.equal(simulations["status"], "ok"))
    lists = _one(done["expected"])
    expected, lengths = _floats(lists), lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    truth, true = _truth(exemplars)
    rows = _keys(done)
    rows["length"], rows["start"] = lengths, np.cumsum(lengths) - lengths
    rows["coverage"] = _mean_coverage(done)
    place = _places(truth["index"], truth["seq_id"], rows["index"], done["seq_id"].to_numpy())
    known = place >= 0
    known[known] &= truth["is_report"][place[known]] == rows["is_report"][known]
    rows, place = rows[known], place[known]
    for name in ("is_top", "is_random", "true_start", "shift"):
        rows[name] = truth[name][place]
    if wrong := np.flatnonzero(rows["length"] != truth["length"][place]).tolist():
        index, seq_id = rows["index"][wrong[0]], truth["seq_id"][place[wrong[0]]]
        raise ValueError(f"unit {index}, sequence {seq_id}: as many expected activations as tokens are needed")
    columns = (np.ascontiguousarray(rows[name]) for name in ("true_start", "start", "length", "shift"))
    rows["sums"] = row_sums(true, expected, *columns)
    return Pairs(rows[np.argsort(rows["index"], kind="stable")], true, expected)


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


def _truth(exemplars: Mapping[int, Sequence[Exemplar]]) -> tuple[npt.NDArray[np.void], npt.NDArray[np.float32]]:
    """By unit and sequence, each once, what ROW says of the truth, with the seq_id; and the activations of all."""
    kept: dict[tuple[int, int], tuple[Exemplar, set[str]]] = {}
    for index, found in exemplars.items():
        for one in found:
            if one.band in BANDS:
                kept.setdefault((index, one.seq_id), (one, set()))[1].add(one.band)
    truth = np.zeros(
        len(kept),
        [*((name, kind) for name, (kind, *_) in (ROW.fields or {}).items() if name != "sums"), ("seq_id", np.int64)],
    )
    if not kept:
        return truth, np.zeros(0, np.float32)
    true = np.concatenate([one.activations for one, _ in kept.values()]).astype(np.float32, copy=False)
    truth["index"], truth["seq_id"] = np.array(list(kept), np.int64).T
    truth["is_report"] = [one.split == "report" for one, _ in kept.values()]
    for band in BANDS:
        truth[f"is_{band}"] = [band in bands for _, bands in kept.values()]
    truth["length"] = [len(one.activations) for one, _ in kept.values()]
    truth["true_start"] = np.cumsum(truth["length"]) - truth["length"]
    unit = np.unique(truth["index"], return_inverse=True)[1]
    group, counts = np.repeat(unit, truth["length"]), np.isfinite(true)
    sums, numbers = np.bincount(group, np.where(counts, true, 0)), np.bincount(group, counts)
    truth["shift"] = (sums / np.maximum(numbers, 1))[unit]
    return truth, true


def _places(indices: Ints, seq_ids: Ints, wanted: Ints, wanted_ids: Ints) -> Ints:
    """Where (index, seq_id) of each wanted pair is among the known ones; -1 for one that is not."""
    if not len(indices) or not len(wanted):
        return np.full(len(wanted), -1)
    step = int(max(seq_ids.max(), wanted_ids.max())) + 1
    known, asked = indices * step + seq_ids, wanted * step + wanted_ids
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known[order], asked), len(known) - 1)]
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
