"""What every scorer is: the sequences simulated from an explanation beside the truth in, numbers out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.evidence import Exemplar
from stages.settings import Score
from stages.statistics import Floats, Ints, pearson, sequence_sums

if TYPE_CHECKING:
    import pandas as pd


KEYS = ["index", "seq_id", "split"]


@dataclass(frozen=True)
class Pairs:
    """Simulated sequences beside their true activations, each a row.

    Shapes: R rows, N tokens of all rows of the shard.
    """

    rows: "pd.DataFrame"
    """index, candidate (-1 for a control), control, source, split, is_random (a top sequence may have been drawn as well), and
    place: the row's number in `starts`."""
    sums: Floats
    """(R, 6) as of `sequence_sums`."""
    starts: Ints
    """Where the tokens of each row start in `true`, `expected` and `coverage`, and where the last one's end."""
    true: Floats
    """(N,) NaN where a token does not count."""
    expected: Floats
    coverage: Floats

    def where(self, wanted: npt.ArrayLike) -> "Pairs":
        """The rows for which (R,) `wanted` holds."""
        kept = np.asarray(wanted, dtype=bool)
        return replace(self, rows=self.rows[kept], sums=self.sums[kept])

    @property
    def correlation(self) -> float:
        """Pearson correlation over all tokens of the rows; NaN where it is undefined."""
        return float(pearson(self.sums.sum(axis=0)))

    def tokens(self) -> tuple[Floats, Floats]:
        """True and expected values of the tokens that count."""
        where = self._places()
        where = where[np.isfinite(self.true[where]) & np.isfinite(self.expected[where])]
        return self.true[where], self.expected[where]

    def mean_coverage(self) -> float:
        """Mean probability mass that the simulator found on the numbers; NaN without rows."""
        where = self._places()
        return float(np.mean(self.coverage[where])) if len(where) else np.nan

    def _places(self) -> Ints:
        ranges = [np.arange(self.starts[place], self.starts[place + 1]) for place in self.rows["place"]]
        return np.concatenate([np.zeros(0, np.int64), *ranges])


def pair(simulations: pa.Table, exemplars: Mapping[int, Sequence[Exemplar]]) -> Pairs:
    """Join the successful rows of `simulations` with the truth by unit, sequence and split.

    Only `top` and `random` exemplars are scored on (Bills et al. 2023); a sequence kept for both reasons counts once.

    Raises:
        ValueError: a simulation has another length than its sequence.
    """
    import pandas as pd

    kept = [(index, one) for index, found in exemplars.items() for one in found if one.band in ("top", "random")]
    truths = pd.DataFrame(
        {
            "index": np.array([index for index, _ in kept], dtype=np.int64),
            "seq_id": np.array([one.seq_id for _, one in kept], dtype=np.int64),
            "split": pd.Series([one.split for _, one in kept], dtype="str"),
            "is_random": np.array([one.band == "random" for _, one in kept], dtype=bool),
            "true": pd.Series([one.activations for _, one in kept], dtype="object"),
        }
    )
    truths = truths.sort_values("is_random", kind="stable").drop_duplicates(KEYS, keep="last")
    rows = simulations.select([*KEYS, "candidate", "control", "source", "status"]).to_pandas()
    rows["simulated"] = np.arange(len(rows))
    rows["candidate"] = rows["candidate"].fillna(-1).astype(np.int64)
    rows = rows[rows["status"] == "ok"].merge(truths, on=KEYS)
    expected, lengths = _flat(simulations["expected"], rows["simulated"])
    coverage, _ = _flat(simulations["coverage"], rows["simulated"])
    wrong = rows[[len(true) != length for true, length in zip(rows["true"], lengths, strict=True)]]
    if len(wrong):
        index, seq_id = wrong.iloc[0][["index", "seq_id"]]
        raise ValueError(f"unit {index}, sequence {seq_id}: as many expected activations as tokens are needed")
    true = np.concatenate([np.zeros(0), *rows["true"]]).astype(np.float64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    sums = sequence_sums(true, expected, starts, np.repeat(rows["index"].to_numpy(), lengths))
    rows = rows.drop(columns=["simulated", "true"]).assign(place=np.arange(len(rows)))
    return Pairs(rows, sums, starts, true, expected, coverage)


def _flat(lists: pa.ChunkedArray, rows: npt.ArrayLike) -> tuple[Floats, Ints]:
    """The values of some rows of a list column one after the other, and the length of each row."""
    taken = lists.take(pa.array(rows)).combine_chunks()
    lengths = taken.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return taken.flatten().to_numpy(zero_copy_only=False).astype(np.float64), lengths


@dataclass(frozen=True)
class Explained:
    """All that a scorer may use of one explanation."""

    select: Pairs
    """Its sequences on the select split, on which calibrations are fitted."""
    report: Pairs
    """Its sequences on the report split, on which scores are published."""
    controls: Pairs
    """What was simulated beside it on the report sequences, by `control` and, for shuffled ones, by `source`."""
    settings: Score
    rng: np.random.Generator


@dataclass(frozen=True)
class Scorer:
    """One or more numbers for an explanation."""

    summary: str
    """One line for people."""
    columns: tuple[pa.Field, ...]
    """What it adds to the scores table."""
    score: Callable[[Explained], Mapping[str, float]]
    """The numbers by column; NaN where one is undefined, which becomes null."""
