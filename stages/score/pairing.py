"""Put every simulated sequence beside its true activations, for all units of a shard at once.

Shapes: R simulated sequences (rows), N their tokens together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.evidence import Exemplar
from stages.score.sums import Floats, sequence_sums

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Strings = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Paired:
    """Simulated sequences of one or more units that have a true counterpart."""

    index: Ints
    candidate: Ints
    """(R,) number of the candidate, -1 for a control."""
    control: Strings
    source: Ints
    is_report: Bools
    is_random: Bools
    """(R,) whether the sequence was drawn uniformly; a top sequence may have been drawn as well."""
    sums: Floats
    """(R, 6) as of `sequence_sums`."""
    starts: Ints
    """(R + 1,) where the tokens of each row start and end in `true` and `expected`."""
    true: Floats
    """(N,) NaN where a token does not count."""
    expected: Floats
    coverage: Floats

    def of_unit(self, index: int) -> Ints:
        """Rows of a unit."""
        return np.flatnonzero(self.index == index)

    def tokens(self, rows: Ints) -> tuple[Floats, Floats]:
        """True and expected values of the tokens of some rows that count."""
        if not len(rows):
            return np.zeros(0), np.zeros(0)
        where = np.concatenate([np.arange(self.starts[row], self.starts[row + 1]) for row in rows])
        where = where[np.isfinite(self.true[where]) & np.isfinite(self.expected[where])]
        return self.true[where], self.expected[where]


def pair(simulations: pa.Table, exemplars: Mapping[int, Sequence[Exemplar]]) -> Paired:
    """Join the successful rows of `simulations` with the truth by unit, sequence and split.

    Only `top` and `random` exemplars are scored on (Bills et al. 2023); a sequence kept for both reasons counts once.

    Raises:
        ValueError: a simulation has another length than its sequence.
    """
    columns = {
        name: simulations[name].to_pylist() for name in ("index", "candidate", "control", "source", "seq_id", "split")
    }
    truths, drawn = _truths(exemplars)
    keys = list(zip(columns["index"], columns["seq_id"], columns["split"], strict=True))
    ok = simulations["status"].to_numpy(zero_copy_only=False) == "ok"
    rows = np.flatnonzero(ok & np.array([key in truths for key in keys], dtype=bool))
    expected, lengths = _flat(simulations["expected"], rows)
    coverage, _ = _flat(simulations["coverage"], rows)
    matched = [truths[keys[row]] for row in rows]
    wrong = [keys[row] for row, values, length in zip(rows, matched, lengths, strict=True) if len(values) != length]
    if wrong:
        raise ValueError(
            f"unit {wrong[0][0]}, sequence {wrong[0][1]}: as many expected activations as tokens are needed"
        )
    true = np.concatenate([np.zeros(0), *matched]).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    index = np.array([columns["index"][row] for row in rows], dtype=np.int64)
    return Paired(
        index=index,
        candidate=np.array([_number(columns["candidate"][row]) for row in rows], dtype=np.int64),
        control=np.array([columns["control"][row] for row in rows], dtype=object),
        source=np.array([columns["source"][row] for row in rows], dtype=np.int64),
        is_report=np.array([columns["split"][row] == "report" for row in rows], dtype=bool),
        is_random=np.array([keys[row] in drawn for row in rows], dtype=bool),
        sums=sequence_sums(true, expected, starts, np.repeat(index, lengths)),
        starts=starts,
        true=true,
        expected=expected,
        coverage=coverage,
    )


def _truths(
    exemplars: Mapping[int, Sequence[Exemplar]],
) -> tuple[dict[tuple[int, int, str], npt.NDArray[np.float32]], set[tuple[int, int, str]]]:
    """True activations by (index, seq_id, split), and which of these sequences were drawn uniformly."""
    truths, drawn = {}, set()
    for index, kept in exemplars.items():
        for exemplar in kept:
            if exemplar.band in ("top", "random"):
                key = (index, exemplar.seq_id, exemplar.split)
                truths[key] = exemplar.activations
                if exemplar.band == "random":
                    drawn.add(key)
    return truths, drawn


def _number(candidate: int | None) -> int:
    return -1 if candidate is None else candidate


def _flat(lists: pa.ChunkedArray, rows: Ints) -> tuple[Floats, Ints]:
    """The values of some rows of a list column in a row, and the length of each row."""
    taken = lists.take(pa.array(rows)).combine_chunks()
    lengths = taken.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return taken.flatten().to_numpy(zero_copy_only=False).astype(np.float64), lengths
