"""`fuzzing`: tokens are marked, and a language model says whether they are the ones that the explanation is about (Paulo et al. 2024).

The tokens to which the unit responds are marked in the texts that fit. In as many other texts, on which it does not fire, as many tokens
are marked as in one of these on average; with judge.fuzzing = "active" wrong tokens are marked in texts that fit, once more.
"""

import math

import numpy as np
import numpy.typing as npt

from stages.evidence import Exemplar
from stages.few_shot import marked_text
from stages.judge.example_scorer import Item, UnitTexts
from stages.judge.yes_no import yes_no
from stages.settings import Judge

HIGH = 0.3
"""The unit responds to tokens from this share of the text's largest activation on."""

Bools = npt.NDArray[np.bool_]


def marked_texts(judge: Judge, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:
    """Texts with right marks and as many with wrong ones; a text without tokens for wrong marks is left out with one with right ones."""
    right = [responds(one) for one in unit.fitting]
    count = math.ceil(np.mean([marks.sum() for marks in right])) if right else 0
    wrong = []
    for one in unit.fitting if judge.fuzzing == "active" else unit.others:
        marks = wrong_marks(one, count, rng)
        if marks is not None:
            wrong.append(Item(one.band, marked_text(one.tokens, marks.tolist()), False, one.seq_id))
    fitting = [
        Item(one.band, marked_text(one.tokens, marks.tolist()), True, one.seq_id, decile)
        for one, marks, decile in zip(unit.fitting, right, unit.deciles, strict=True)
    ]
    return fitting[: len(wrong)] + wrong[: len(fitting)]


def responds(exemplar: Exemplar) -> Bools:
    """(T,) the tokens of a text to which the unit responds."""
    values = np.nan_to_num(exemplar.activations, nan=-np.inf)
    return np.asarray(values >= HIGH * exemplar.highest)


def wrong_marks(exemplar: Exemplar, count: int, rng: np.random.Generator) -> Bools | None:
    """(T,) so many tokens, drawn among those to which the unit does not respond: all that count where it is never above 0.

    None where there is no such token; all of them where there are fewer.
    """
    counted = np.isfinite(exemplar.activations)
    low = counted & ~responds(exemplar) if exemplar.highest > 0 else counted
    if not low.any():
        return None
    marks = np.zeros(len(low), bool)
    marks[rng.permutation(np.flatnonzero(low))[:count]] = True
    return marks


FUZZING = yes_no("whether the marked tokens are the right ones", "judge/fuzzing.v1", marked_texts)
