"""What stands beside the marked texts: pairs of tokens, tokens that an activation needs, tokens made more likely."""

import re
import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.prompts import FOLDER
from stages.evidence import Detail, Evidence, Exemplar, Pair
from stages.explain.marked_texts import (
    LEAST_SHARE,
    NEEDED,
    PAIRS,
    highlight,
    needed,
    quoted,
    take_notes,
    token_names,
    top_pairs,
)
from tests.pipeline.llm.shown import read_token
from tests.stages.explain.scripted import text
from tests.tiers import examples

NAME = r'"((?:[^"\\]|\\.)*)"(?: #(\d+))?'
PAIR = re.compile(f"{NAME} -> {NAME}")
TOKENS = st.lists(
    st.sampled_from(
        [
            '"',
            '\\"',
            '" -> "',
            " -> ",
            '" #2',
            " #2",
            "#2",
            "\\",
            "\n",
            "\t",
            "",
            "«",
            "<|im_end|>",
            "\ufffd",
            " a",
            "a",
            ", ",
        ]
    ),
    min_size=1,
    max_size=8,
)


def read_name(shown: str, number: str | None, tokens: list[str]) -> int:
    """The position that a name means."""
    token = read_token(shown.replace('\\"', '"'))
    places = [place for place, one in enumerate(tokens) if one == token]
    assert (number is None) == (len(places) == 1)
    return places[int(number or 1) - 1]


@settings(max_examples=examples(500))
@given(tokens=TOKENS)
def test_every_name_leads_back_to_one_position(tokens: list[str]) -> None:
    names = token_names(tokens)
    assert len(set(names)) == len(names)
    for place, name in enumerate(names):
        match = re.fullmatch(NAME, name)
        assert match
        assert "\n" not in name
        assert read_name(match[1], match[2], tokens) == place


@settings(max_examples=examples(500))
@given(tokens=TOKENS, data=st.data())
def test_lines_of_hostile_tokens_lead_back_to_the_pairs_and_tokens(tokens: list[str], data: st.DataObject) -> None:
    place = st.integers(0, len(tokens) - 1)
    pairs = [Pair(source, to, 5.0) for source, to in data.draw(st.lists(st.tuples(place, place), max_size=PAIRS))]
    values = np.zeros(len(tokens), np.float32)
    values[data.draw(place)] = 1.0
    attribution = np.array(data.draw(st.lists(st.sampled_from([0.0, 3.0]), min_size=len(tokens), max_size=len(tokens))))
    unit = Evidence("m", 0, "+", [Exemplar(4, "top", tokens, values)], [], [], {4: Detail(attribution, pairs)})
    ((noted,), _) = take_notes(unit, highlight(unit))
    matches = [PAIR.fullmatch(line) for line in noted.pairs]
    read = [(read_name(m[1], m[2], tokens), read_name(m[3], m[4], tokens)) for m in matches if m]
    assert read == [(pair.source, pair.target) for pair in pairs]
    names = [re.fullmatch(NAME, name) for name in noted.needs]
    places = [read_name(m[1], m[2], tokens) for m in names if m]
    assert places == needed(attribution, int(values.argmax()))


def test_only_the_strongest_pairs_are_shown_and_no_weak_one() -> None:
    pairs = [Pair(0, 1, 2.0), Pair(0, 2, 9.0), Pair(1, 2, 9.0 * LEAST_SHARE), Pair(0, 3, 3.0), Pair(2, 3, 2.5)]
    assert top_pairs(pairs) == [(0, 2), (0, 3), (2, 3)]
    assert top_pairs(pairs[1:3]) == [(0, 2), (1, 2)]
    assert top_pairs([Pair(0, 1, 9.0), Pair(1, 1, 9.0 * LEAST_SHARE - 0.1)]) == [(0, 1)]
    assert top_pairs([Pair(0, 1, 0.0), Pair(0, 1, float("nan"))]) == []


def test_needed_tokens_leave_out_the_peak_and_what_hardly_matters() -> None:
    assert needed(np.array([1.0, 4.0, 9.0, 3.0, np.nan, -8.0, 2.0, 2.5], np.float32), 2) == [1, 3, 7]
    assert needed(np.array([1.0, 0.5, 9.0], np.float32), 2) == []
    assert needed(np.array([np.nan, -1.0, 0.0], np.float32), 0) == []
    assert len(needed(np.ones(9, np.float32), 0)) == NEEDED


def test_a_unit_of_which_nothing_more_is_known_has_bare_texts() -> None:
    unit = Evidence(
        "m", 0, "+", [text("a bank", {"bank": 2.0}, seq_id=1)], [], [], {9: Detail(None, [Pair(0, 1, 2.0)])}
    )
    texts, kinds = take_notes(unit, highlight(unit))
    assert (kinds, [one.text for one in texts]) == ((), [" a «bank»"])


def test_a_quotation_mark_and_a_space_within_a_token_are_seen() -> None:
    assert [quoted(token) for token in ('"', " a", "\\", '\\"', "")] == [
        r'"\""', '" a"', r'"\\"', r'"\\\""', r'"\empty"',
    ]  # fmt: skip


NEURONS = tomllib.loads((FOLDER / "explain" / "fewshot_texts.v2.toml").read_text(encoding="utf-8"))["neuron"]


@pytest.mark.parametrize(
    "shown", [one for neuron in NEURONS for one in neuron["texts"]], ids=lambda one: one["text"][:20]
)
def test_the_invented_notes_are_true_of_their_texts(shown: dict[str, list[str]]) -> None:
    marked = str(shown["text"])
    tokens, inside = re.findall(r" ?\w+| ?[^\w\s]", re.sub("[«»]", "", marked)), re.findall("«([^»]+)»", marked)
    assert shown["pairs"]
    assert shown["needs"]
    for line in [*shown["pairs"], *shown["needs"]]:
        for name, number in re.findall(NAME, line):
            count = tokens.count(name.replace('\\"', '"'))
            assert count >= int(number or 1), line
            assert bool(number) == (count > 1), line
    for line in shown["pairs"]:
        match = PAIR.fullmatch(line)
        assert match
        assert match[3].replace('\\"', '"').strip() in inside
