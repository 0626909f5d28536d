"""With which probability each kept sequence of a unit was kept, so that sums over these stand for all sequences of the split.

Of the N sequences of a split, the k of the band `top` are kept for certain; which these are is settled by the corpus alone. The
band `random` is a uniform sample, drawn before anything is known of the unit. Those of its sequences that are `top` too count
there; the r others are a uniform sample of the N - k that are not `top`. So their probability is r / (N - k), and each
stands for (N - k) / r sequences. The other bands are no sample of known probabilities and are left out.

Shapes: R rows, simulated sequences of one split.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.execution.stage import Context
from pipeline.imports import IMPORTED
from pipeline.schemas import CORPUS, UNITS
from stages.score.statistics import Floats, Ints
from stages.score.truth import Truth
from stages.settings import Record

Kinds = npt.NDArray[np.bool_]
FIRING_QUANTILE = 0.99
"""A unit fires on the tokens above this quantile of its activations; on the nearest one of record.quantiles."""


@dataclass(frozen=True)
class Drawn:
    """How the sequences of a unit and a split were kept."""

    total: int = 0
    """N; 0 where it is not known."""
    top: int = 0
    """k"""
    random: int = 0
    """r"""
    known: int = 0
    """Those of the r on which the unit has an activation that counts."""

    @classmethod
    def of(cls, is_top: Kinds, is_random: Kinds, total: int, random: int) -> "Drawn":
        """That of the kept sequences of one split.

        Args:
            is_top, is_random: (S,) why each of them was kept.
            total: sequences of the split.
            random: uniformly drawn ones that were asked for.
        """
        both = int((is_top & is_random).sum())
        return cls(total, int(is_top.sum()), min(random, total) - both, int(is_random.sum()) - both)

    def weights(self, is_top: Kinds, groups: Ints | None = None) -> Floats:
        """(R,) how many sequences of the split each row stands for; NaN where that cannot be told.

        A sequence that could not be simulated is stood for by the others of its kind.

        Args:
            groups: (R,) numbers of explanations, each of which was simulated on sequences of its own; one unless given.
        """
        from stages.score.sum_kernels import stands_for

        group = np.zeros(len(is_top), np.int64) if groups is None else np.ascontiguousarray(groups)
        kinds, known = np.ascontiguousarray(is_top), (self.total, self.top, self.random, self.known)
        found: Floats = stands_for(kinds, group, *known)
        return found


@dataclass(frozen=True)
class Kept:
    """What is known of the sequences of a unit beyond what they hold."""

    select: Drawn = Drawn()
    report: Drawn = Drawn()
    fires_above: float = float("nan")
    """The unit fires where its activation is larger, in the polarity; NaN where that is not known."""


NOT_KNOWN = Kept()


def kept_of_units(
    context: Context, module: str, polarity: str, indices: Sequence[int], truth: Truth
) -> dict[int, Kept]:
    """By unit, what is known of its sequences."""
    totals = sequences_by_split(context)
    wanted, fires = context.config[Record].random, _thresholds(context, module, polarity, indices)
    found = truth.sequences
    ends: list[list[int]] = np.searchsorted(found["index"], np.asarray(indices)[:, None] + [0, 1]).tolist()

    def of(between: list[int], split: str) -> Drawn:
        part = found[slice(*between)]
        part = part[part["is_report"] == (split == "report")]
        return Drawn.of(part["is_top"], part["is_random"], totals[split], getattr(wanted, split))

    return {
        index: Kept(of(between, "select"), of(between, "report"), fires.get(index, np.nan))
        for index, between in zip(indices, ends, strict=True)
    }


def sequences_by_split(context: Context) -> Counter[str]:
    """Sequences of the corpus by split; nothing for an imported run, whose corpus holds the kept ones alone."""
    return context.once("sequences by split", lambda _: _counted(context))


def _counted(context: Context) -> Counter[str]:
    found: Counter[str] = Counter()
    if context.config.corpus.source != IMPORTED:
        for batch in context.tables.batches(CORPUS, columns=["split"], rows=65_536):
            found.update({one["values"]: one["counts"] for one in pc.value_counts(batch.column("split")).to_pylist()})
    return found


def _thresholds(context: Context, module: str, polarity: str, indices: Sequence[int]) -> dict[int, float]:
    """By unit the activation above which it fires, in the polarity; none where its quantiles are not known."""
    levels = np.asarray(context.config[Record].quantiles)
    if not levels.size:
        return {}
    place = int(np.abs(levels - FIRING_QUANTILE).argmin())
    name, sign = ("quantile_boundaries", 1) if polarity == "+" else ("quantile_boundaries_negative", -1)
    rows = context.tables.read(UNITS, context.tables.is_unit(module, indices), ["index", name])
    known = zip(rows["index"].to_pylist(), rows[name].to_pylist(), strict=True)
    return {index: sign * found[place] for index, found in known if found and found[place] is not None}
