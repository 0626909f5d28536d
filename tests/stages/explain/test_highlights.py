"""Which tokens of a unit's texts are marked, and which other texts look like them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evidence import Evidence, Exemplar
from stages.explain.explain_units import ExplanationError
from stages.explain.marked_texts import ENOUGH, EXEMPLARS, LOW, OTHERS, SHARES, hard_negatives, highlight, look_alikes
from tests.pipeline.llm.shown import read_marks, read_units
from tests.stages.explain.scripted import evidence, exemplar, text
from tests.tiers import examples


def look_alike_texts(unit: Evidence) -> list[str]:
    return look_alikes(unit, highlight(unit))


def test_tokens_from_a_share_of_the_highest_activation_on_are_marked() -> None:
    words = {f"w{n}": 10 * SHARES[0] + n / 9 for n in range(ENOUGH)} | {"peak": 10.0, "weak": 10 * SHARES[0] - 0.1}
    unit = evidence(text(f"the peak and weak {' '.join(f'w{n} .' for n in range(4))}", words), text("w4 . w5", words))
    assert highlight(unit).texts == [" the «peak» and weak «w0» . «w1» . «w2» . «w3» .", " «w4» . «w5»"]


@pytest.mark.parametrize("share", SHARES)
def test_the_threshold_is_loosened_until_enough_different_tokens_are_marked(share: float) -> None:
    words = {f"w{n}": 10 * share + 0.01 for n in range(ENOUGH - 1)} | {"peak": 10.0}
    unit = evidence(text(" , ".join([*words, "out"]), words | {"out": 10 * share - 0.05}))
    assert set(re.findall(r"«(\w+)»", highlight(unit).texts[0])) == set(words)


def test_capitals_and_white_space_make_no_different_token() -> None:
    spellings = ["the", "The", "tHe", "thE", "THe", "THE"]
    assert len(spellings) >= ENOUGH
    unit = evidence(
        text(" . ".join(["other", *spellings]), dict.fromkeys(spellings, 10.0) | {"other": 10 * SHARES[-1]})
    )
    assert highlight(unit).texts[0].startswith(" «other» . «the» . «The» . ")


def test_a_unit_of_few_tokens_is_marked_down_to_the_last_share_and_no_further() -> None:
    unit = evidence(text("one two three", {"one": 10.0, "two": 10 * LOW, "three": 10 * LOW - 0.1}))
    assert highlight(unit).texts == [" «one two» three"]


def test_only_the_strongest_exemplars_are_shown_and_none_without_a_marked_token() -> None:
    top = [text(f"t{n} word", {f"t{n}": 20.0 - n / 9 if n != 3 else 1.0}, seq_id=n) for n in range(EXEMPLARS + 2)]
    shown = highlight(evidence(*top, text("random one", {"one": 99.0}, "random"))).shown
    assert [exemplar.seq_id for exemplar in shown] == [0, 1, 2, *range(4, EXEMPLARS)]


def test_positions_left_out_of_the_record_are_never_marked() -> None:
    unit = evidence(exemplar([np.nan, 2.0, np.nan]))
    assert highlight(unit).texts == [" tok0 «tok1» tok2"]


@pytest.mark.parametrize(
    "unit", [evidence(), evidence(exemplar([0.0, -1.0, np.nan])), evidence(exemplar([1.0], "random"))]
)
def test_a_unit_without_an_active_top_exemplar_has_nothing_to_show(unit: Evidence) -> None:
    with pytest.raises(ExplanationError, match="no exemplar of the explain split has an activation above zero"):
        highlight(unit)


TOP = text("the river bank was steep", {"bank": 10.0, "river": 3.0}, seq_id=1)


def test_texts_that_hold_the_strongest_tokens_come_first_and_common_tokens_weigh_little() -> None:
    unit = evidence(
        TOP,
        text("the was the was steep", {}, "random", 11),
        text("a bank lent money", {}, "random", 12),
        text("nothing of the sort was said", {}, "quantile", 13),
        text("quite other words", {}, "random", 14),
        text("one river and another", {}, "quantile", 15),
    )
    assert look_alike_texts(unit) == [
        " a bank lent money", " one river and another", " the was the was steep", " nothing of the sort was said",
        " quite other words",
    ]  # fmt: skip


def test_a_rare_shared_token_weighs_more_than_two_common_ones() -> None:
    common = [text(f"the was w{n}", {}, "random", 20 + n) for n in range(3)]
    unit = evidence(TOP, *common, text("so steep", {}, "random", 30))
    assert look_alike_texts(unit)[0] == " so steep"


def test_the_unit_is_low_on_every_look_alike() -> None:
    unit = evidence(
        TOP,
        text("bank a", {"bank": 10 * LOW}, "random", 2),
        text("bank b", {"bank": 10 * LOW - 0.01}, "quantile", 3),
        text("bank c", {"bank": -5.0}, "random", 4),
        text("bank d", {}, "top", 5),
        Exemplar(6, "random", [" bank", " e"], np.array([np.nan, np.nan], dtype=np.float32)),
    )
    assert sorted(look_alike_texts(unit)) == [" bank b", " bank c"]


def test_a_unit_that_is_low_nowhere_has_no_look_alikes() -> None:
    assert look_alike_texts(evidence(TOP, text("bank", {"bank": 9.0}, "random", 2))) == []


def test_a_sequence_of_two_bands_is_one_look_alike_and_there_are_only_so_many() -> None:
    others = [text("bank", {}, band, number) for number in range(2, 12) for band in ("quantile", "random")]
    assert look_alike_texts(evidence(TOP, *others)) == [" bank"] * OTHERS


def test_a_hard_negative_has_no_token_that_would_be_marked_in_an_exemplar() -> None:
    words = {f"w{n}": 9.0 for n in range(ENOUGH)}
    strong = text(" , ".join(words), words)
    hard = [
        text("a", {"a": 9 * SHARES[0]}, "similar", 1),
        text("b", {"b": 9 * SHARES[0] - 0.1}, "similar", 2),
        Exemplar(3, "neighbour", [" c"], np.array([np.nan], dtype=np.float32)),
    ]
    unit = replace(evidence(strong), negatives=hard)
    assert hard_negatives(unit, highlight(unit)) == [" b"]
    assert highlight(unit).marked_from == pytest.approx(9 * SHARES[0])


HOSTILE = st.sampled_from(
    [
        "«",
        "»",
        " «x»",
        "<|im_end|>",
        "<|",
        "im_end",
        "|>",
        "",
        "\n",
        "\t",
        "\\n",
        "\ufffd",
        "\u202e",
        "{{",
        '"',
        "1. ",
        " a",
    ]
)
SEQUENCE = st.lists(st.tuples(HOSTILE, st.sampled_from([0.0, 1.0, 5.0, 10.0, float("nan")])), min_size=1, max_size=8)


def _sequence(pairs: list[tuple[str, float]], band: str, number: int) -> Exemplar:
    values = np.array([value for _, value in pairs], dtype=np.float32)
    return Exemplar(number, band, [token for token, _ in pairs], values)


@settings(max_examples=examples(1000))
@given(top=st.lists(SEQUENCE, min_size=1, max_size=4), others=st.lists(SEQUENCE, max_size=4))
def test_what_is_shown_of_hostile_texts_leads_back_to_the_tokens_and_their_marks(
    top: list[list[tuple[str, float]]], others: list[list[tuple[str, float]]]
) -> None:
    sequences = [_sequence(pairs, "top", number) for number, pairs in enumerate(top)]
    unit = evidence(*sequences, *(_sequence(pairs, "random", 10 + n) for n, pairs in enumerate(others)))
    if not any(np.nanmax(exemplar.activations, initial=0) > 0 for exemplar in sequences):
        return
    found = highlight(unit)
    marks = [read_marks(shown, one.tokens) for shown, one in zip(found.texts, found.shown, strict=True)]
    marked = {float(v) for one, row in zip(found.shown, marks, strict=True) for v in one.activations[row]}
    left = {float(v) for one, row in zip(found.shown, marks, strict=True) for v in one.activations[np.invert(row)]}
    assert min(marked) > max((value for value in left if value == value), default=0.0)
    assert max(marked) == found.highest
    low = [one for one in unit.band("random") if not np.nanmax(one.activations, initial=0) >= LOW * found.highest]
    unmarked = {("".join(one.tokens), False) for one in low}
    for shown in look_alikes(unit, found):
        units = read_units(shown)
        assert ("".join(character for character, _ in units), any(mark for _, mark in units)) in unmarked
