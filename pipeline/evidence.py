"""What was recorded about a unit, as explainers see it.

Shapes: T tokens of a sequence.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SPLITS = ("explain", "select", "report")
BANDS = ("top", "quantile", "random")

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

    @property
    def peak(self) -> int:
        """Position of the largest activation, the first one among equals."""
        return int(np.nanargmax(self.activations))


@dataclass(frozen=True)
class TopToken:
    """A token of the unit's table of tokens by mean activation, over the `explain` sequences only."""

    token: str
    mean_activation: float
    count: int


@dataclass(frozen=True)
class Pair:
    """Two positions between which an attention head moves something."""

    source: int
    target: int
    value: float
    """The norm of what is moved."""


@dataclass(frozen=True)
class Detail:
    """What else is known of an exemplar of a unit."""

    attribution: Activations | None
    """(T,) what each token adds to the activation at the peak, in the polarity of the unit; NaN where it is not known."""
    pairs: list[Pair] | None
    """Of an attention head, its strongest pairs, the strongest first."""


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

    def band(self, name: str) -> list[Exemplar]:
        return [exemplar for exemplar in self.exemplars if exemplar.band == name]


def split_of(seq_id: int) -> str:
    """The split that a sequence belongs to, for every unit alike.

    The corpus is shuffled, so a residue is a random draw. Half of the sequences go to `explain`, a quarter each to
    `select` and `report`. Because the split belongs to the sequence, corpus-wide statistics that are taken over
    `explain` alone cannot leak what a score is computed on.
    """
    return ("explain", "select", "explain", "report")[seq_id % 4]
