"""What every scorer is: the sequences simulated from an explanation beside the truth in, numbers out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.settings import Score
from stages.statistics import Floats, Ints, pearson

if TYPE_CHECKING:
    import pandas as pd


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
