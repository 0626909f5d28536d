"""The texts a judge is shown: truths come from the activations, marks are right or surely wrong."""

import re

import numpy as np

from stages.evidence import Exemplar
from stages.judge.items import detection_items, fuzzing_items

RNG = np.random.default_rng(0)
TOKENS = ["the", " red", " house", " and", " a", " blue", " door"]


def exemplar(seq_id: int, band: str, values: list[float]) -> Exemplar:
    tokens = [f"{token}{seq_id}" for token in TOKENS]
    return Exemplar(seq_id, band, tokens, np.asarray([np.nan, *values], np.float32), "report")


def unit(top: int, drawn: int) -> list[Exemplar]:
    strong = [exemplar(seq_id, "top", [9, 0, 0.1, 0, 5, 0]) for seq_id in range(top)]
    return strong + [exemplar(100 + n, "random", [0, n / 10, 0, 0, 0, 0]) for n in range(drawn)]


def test_detection_shows_as_many_low_texts_as_high_ones() -> None:
    items = detection_items(unit(5, 12), 4, RNG)
    assert [(item.seq_id, item.fits) for item in items] == [
        *((seq_id, False) for seq_id in (100, 101, 102, 103)),
        *((seq_id, True) for seq_id in (0, 1, 2, 3)),
    ]
    assert not any("«" in item.text for item in items)
    assert items[-1].text == "".join(f"{token}3" for token in TOKENS)


def test_a_random_sequence_above_the_median_or_among_the_top_is_no_negative() -> None:
    exemplars = [*unit(9, 4), exemplar(0, "random", [9, 0, 0, 0, 0, 0])]
    negatives = [item.seq_id for item in detection_items(exemplars, 9, RNG) if not item.fits]
    assert negatives == [100, 101]


def test_hard_negatives_take_half_of_the_places() -> None:
    hard = [exemplar(200 + n, "similar", [0, 0.1, 0, 0, 0, 0]) for n in range(5)]
    bands = [item.band for item in detection_items([*unit(4, 12), *hard], 4, RNG) if not item.fits]
    assert bands == ["similar", "similar", "random", "random"]


def test_fuzzing_marks_what_fires_or_as_many_that_do_not() -> None:
    items = fuzzing_items(unit(10, 3), 5, np.random.default_rng(0))
    assert sorted(item.fits for item in items) == [False] * 5 + [True] * 5
    for item in items:
        marked = re.findall(r" ?«(.*?)»", item.text)
        names = {word.strip().rstrip("0123456789") for run in marked for word in re.findall(r"\S+", run)}
        if item.fits:
            assert names == {"red", "blue"}
        else:
            assert names
            assert not names & {"red", "blue", "the"}, "the first position does not count, so it is never marked"


def test_a_text_without_enough_quiet_tokens_is_not_marked_wrongly() -> None:
    loud = [exemplar(n, "top", [9, 9, 9, 9, 9, 0]) for n in range(6)]
    assert all(item.fits for item in fuzzing_items(loud, 3, np.random.default_rng(0)))
