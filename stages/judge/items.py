"""The texts that a judge is asked about, and the right answers: `detection` and `fuzzing` (Paulo et al. 2024).

Everything comes from the `report` split, which neither explained the unit nor chose among its explanations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.evidence import Exemplar
from stages.token_lines import marked_text

HIGH = 0.5
"""The unit responds to tokens from this share of the text's highest activation on."""
LOW = 0.2
"""A token can be marked wrongly if its activation is below this share of the text's highest."""


@dataclass(frozen=True)
class Item:
    """A text and whether it fits a right explanation."""

    seq_id: int
    band: str
    text: str
    """On one line, as `marked_text` writes it."""
    fits: bool


@dataclass(frozen=True)
class JudgeMethod:
    """A question to a judge."""

    summary: str
    """One line for people."""
    prompt: str
    """Name of its prompt."""
    items: Callable[[Sequence[Exemplar], int, np.random.Generator], list[Item]]
    """The texts, from exemplars of the report split: so many of either kind at most; the generator draws what is drawn."""


def detection_items(exemplars: Sequence[Exemplar], most: int, rng: np.random.Generator) -> list[Item]:  # noqa: ARG001
    """Top sequences, and as many on which the unit stays low.

    The low ones are hard negatives where there are any, and random sequences whose maximum is not above the median of all
    random sequences' maxima: a unit that is never quite off is low below a quantile, not at zero.
    """
    top = [exemplar for exemplar in exemplars if exemplar.band == "top"][:most]
    known = {exemplar.seq_id for exemplar in exemplars if exemplar.band == "top"}
    hard = [exemplar for exemplar in exemplars if exemplar.band in ("similar", "neighbour")]
    drawn = [exemplar for exemplar in exemplars if exemplar.band == "random" and exemplar.seq_id not in known]
    peaks = [_highest(exemplar) for exemplar in drawn]
    median = float(np.median(peaks)) if peaks else 0.0
    low = [exemplar for exemplar, peak in zip(drawn, peaks, strict=True) if peak <= median]
    count = min(len(top), most)
    kinds = [(hard[: count // 2 or 1] + low)[:count], top[:count]]
    return [
        Item(exemplar.seq_id, exemplar.band, marked_text(exemplar.tokens, [False] * len(exemplar.tokens)), fits)
        for fits, kept in zip((False, True), kinds, strict=True)
        for exemplar in kept
    ]


def fuzzing_items(exemplars: Sequence[Exemplar], most: int, rng: np.random.Generator) -> list[Item]:
    """Top sequences with the tokens marked to which the unit responds, and others with as many wrong ones marked."""
    top = [exemplar for exemplar in exemplars if exemplar.band == "top"][: 2 * most]
    wrong = set(rng.permutation(len(top))[: len(top) // 2].tolist())
    items = []
    for place, exemplar in enumerate(top):
        marked = _marks(exemplar, right=place not in wrong, rng=rng)
        if marked is not None:
            text = marked_text(exemplar.tokens, marked)
            items.append(Item(exemplar.seq_id, exemplar.band, text, place not in wrong))
    return items


def _marks(exemplar: Exemplar, *, right: bool, rng: np.random.Generator) -> list[bool] | None:
    """Which tokens are marked; None where there are not as many wrong ones as right ones."""
    highest = _highest(exemplar)
    values = np.nan_to_num(exemplar.activations, nan=-np.inf)
    responds = values >= HIGH * highest
    if highest <= 0:
        return None
    if right:
        return list(responds.tolist())
    others = np.flatnonzero(np.isfinite(values) & (values < LOW * highest))
    if len(others) < responds.sum():
        return None
    marked = np.zeros(len(values), bool)
    marked[rng.permutation(others)[: int(responds.sum())]] = True
    return list(marked.tolist())


def _highest(exemplar: Exemplar) -> float:
    return float(np.nanmax(exemplar.activations))


DETECTION = JudgeMethod("which texts fit", "judge/detection.v1", detection_items)
FUZZING = JudgeMethod("whether the marked tokens are the right ones", "judge/fuzzing.v1", fuzzing_items)
