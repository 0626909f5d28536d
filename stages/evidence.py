"""What was recorded about a unit, as explainers see it.

Shapes: T tokens of a sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPLITS = ("explain", "select", "report")
BANDS = ("top", "quantile", "random", "similar", "neighbour")
"""Why a sequence was kept; the last two are hard negatives, see stages/record/negatives.py."""

Activations = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Exemplar:
    """A kept sequence of one unit."""

    seq_id: int
    band: str
    tokens: list[str]
    """T token texts; joined, they are the text."""
    activations: Activations
    """(T,) activations in the polarity of the unit; NaN at the positions left out of the record."""
    split: str = "explain"
    start: int = 0
    """Position in the sequence of the first of its tokens; above 0 where the beginning is left out."""

    @property
    def peak(self) -> int:
        """Position of the largest activation, the first one among equals."""
        return int(np.nanargmax(self.activations))

    def around(self, context: int | None) -> "Exemplar":
        """The `context` tokens around the peak; all of them where it is None.

        The peak stands in the middle, with one token more before it than after it where the number is even. Near an end
        the part is shifted, so that it has `context` tokens wherever the sequence has. Tokens and activations are cut
        alike. Without a finite activation the part is the beginning.
        """
        if context is None or context >= len(self.tokens):
            return self
        peak = self.peak if np.isfinite(self.activations).any() else 0
        first = min(max(peak - context // 2, 0), len(self.tokens) - context)
        part = slice(first, first + context)
        return replace(self, tokens=self.tokens[part], activations=self.activations[part], start=self.start + first)


@dataclass(frozen=True)
class TopToken:
    """A token of the unit's table of tokens by mean activation, over the `explain` sequences only."""

    token: str
    mean_activation: float
    count: int


class Pair(NamedTuple):
    """Two positions between which an attention head moves something."""

    source: int
    target: int
    value: float
    """The norm of what is moved."""


@dataclass(frozen=True)
class Detail:
    """What is known of an exemplar beyond its activations. Positions count from the exemplar's first token."""

    attribution: Activations | None = None
    """(T,) how much each token matters to the activation at the peak, negative where it works against it; NaN where that
    is not known, None where it was not worked out."""
    pairs: list[Pair] | None = None
    """Of an attention head, its strongest pairs, the strongest first."""

    def within(self, start: int, stop: int) -> "Detail":
        """The part about the tokens start..stop alone; a pair that leads out of it is left out."""
        inside = range(start, stop)
        pairs = [pair for pair in self.pairs or () if pair.source in inside and pair.target in inside]
        return Detail(
            None if self.attribution is None else self.attribution[start:stop],
            None if self.pairs is None else [Pair(source - start, to - start, value) for source, to, value in pairs],
        )


@dataclass(frozen=True)
class Evidence:
    """All that an explainer may know of a unit; every part of it comes from the `explain` split."""

    module: str
    index: int
    polarity: str
    exemplars: list[Exemplar]
    """`top` by falling maximum, then `quantile`, then `random`."""
    top_tokens: list[TopToken]
    """By falling mean activation."""
    negatives: list[Exemplar] = field(default_factory=list)
    """Hard negatives, `similar` first, then `neighbour`, the hardest first; none unless they were asked for."""
    details: Mapping[int, Detail] = field(default_factory=dict)
    """By seq_id, for exemplars of which there are any."""
    promoted: list[str] = field(default_factory=list)
    """Tokens that the unit makes more likely where it is active in this polarity, by its weights, the strongest first; none
    unless they were asked for."""
    suppressed: list[str] = field(default_factory=list)
    """Tokens that it makes less likely, likewise."""

    def band(self, name: str) -> list[Exemplar]:
        return [exemplar for exemplar in self.exemplars if exemplar.band == name]

    def around(self, context: int | None) -> "Evidence":
        """Its exemplars and hard negatives, each cut to the tokens around its peak, and its details cut alike."""
        exemplars = [exemplar.around(context) for exemplar in self.exemplars]
        details = {}
        for whole, part in zip(self.exemplars, exemplars, strict=True):
            if whole.seq_id in self.details:
                first = part.start - whole.start
                details[whole.seq_id] = self.details[whole.seq_id].within(first, first + len(part.tokens))
        negatives = [exemplar.around(context) for exemplar in self.negatives]
        return replace(self, exemplars=exemplars, negatives=negatives, details=details)


def split_of(seq_id: int) -> str:
    """The split that a sequence belongs to, for every unit alike.

    The corpus is shuffled, so a residue is a random draw. Half of the sequences go to `explain`, a quarter each to
    `select` and `report`. Because the split belongs to the sequence, corpus-wide statistics that are taken over
    `explain` alone cannot leak what a score is computed on.
    """
    return ("explain", "select", "explain", "report")[seq_id % 4]
