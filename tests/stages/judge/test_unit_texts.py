"""The texts that a judge is shown: truths come from the activations, marks are right or surely wrong."""

import re

import numpy as np
import pytest

from stages.evidence import Exemplar
from stages.judge.fuzzing import marked_texts
from stages.judge.yes_no import shown_texts
from stages.settings import Judge
from tests.stages.judge.units import config, exemplar, unit_of

TOKENS = ["the", " red", " house", " and", " a", " blue", " door"]


def sequence(seq_id: int, band: str, values: list[float]) -> Exemplar:
    return exemplar(seq_id, band, [f"{token}{seq_id}" for token in TOKENS], [np.nan, *values])


FIRES = [sequence(seq_id, "fires", [9, 0, 0.1, 0, 3, 0]) for seq_id in range(10)]
QUIET = [sequence(100 + seq_id, "quiet", [0, 0, 0, 0, 0, 0]) for seq_id in range(10)]
UNIT = unit_of(FIRES, QUIET)
JUDGE, ACTIVE = (config(fuzzing=where)[Judge] for where in ("quiet", "active"))


def words(text: str) -> set[str]:
    """The marked words, without the numbers of their texts."""
    return {word.rstrip("0123456789") for run in re.findall("«(.*?)»", text) for word in run.split()}


def test_detection_shows_every_text_as_it_is() -> None:
    items = shown_texts(JUDGE, UNIT, np.random.default_rng(0))
    assert [(item.seq_id, item.fits) for item in items] == [
        *((n, True) for n in range(10)),
        *((100 + n, False) for n in range(10)),
    ]
    assert items[3].text == "".join(f"{token}3" for token in TOKENS)
    assert [item.decile for item in items] == [*range(1, 11), *[None] * 10]


def test_fuzzing_marks_tokens_above_three_tenths_and_wrong_ones_in_texts_that_do_not_fit() -> None:
    items = marked_texts(JUDGE, UNIT, np.random.default_rng(0))
    assert [item.fits for item in items] == [True] * 10 + [False] * 10
    for item in items:
        if item.fits:
            assert words(item.text) == {"red", "blue"}
        else:
            assert item.band == "quiet"
            assert len(words(item.text)) == 2, "as many as are marked in a text that fits"
            assert "the" not in words(item.text), "the first position does not count, so it is never marked"


def test_wrong_marks_can_stand_in_texts_that_fit() -> None:
    wrong = [item for item in marked_texts(ACTIVE, UNIT, np.random.default_rng(0)) if not item.fits]
    assert [item.seq_id for item in wrong] == list(range(10))
    for item in wrong:
        assert len(words(item.text)) == 2
        assert not words(item.text) & {"red", "blue", "the"}


def test_wrong_marks_are_never_on_a_token_that_a_weak_text_fires_on() -> None:
    weak = [sequence(100 + n, "weak", [0, 0, 1, 0, 0, 0]) for n in range(10)]
    items = marked_texts(JUDGE, unit_of(FIRES, weak), np.random.default_rng(0))
    assert not any(words(item.text) & {"and", "the"} for item in items if not item.fits)


@pytest.mark.parametrize("judge", [JUDGE, ACTIVE])
def test_where_nothing_can_be_marked_wrongly_one_of_either_kind_is_left_out(judge: Judge) -> None:
    loud = [sequence(n, "fires", [9, 9, 9, 9, 9, 9]) for n in range(4)]
    unit = unit_of([*FIRES[:6], *loud], [*QUIET[:6], *loud])
    items = marked_texts(judge, unit, np.random.default_rng(0))
    assert [item.fits for item in items] == [True] * 6 + [False] * 6
