"""Tokens as lines of a prompt: one line each, no two alike, never a mark or a special token."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.prompts import Prompt
from stages.few_shot import CLOSE, OPEN, few_shot_neurons, marked_text, normalised, show_token, token_lines
from tests.pipeline.llm.shown import read_marks, read_token, read_units
from tests.tiers import examples

SPECIAL = [
    "<start>", "<end>", "<|im_end|>", "<|im_start|>", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<\uff5cUser\uff5c>",
]  # fmt: skip
MARKS = [OPEN, CLOSE, f" {OPEN}", f"{CLOSE} ", f"{OPEN}a{CLOSE}", "\\", "\\n", "\\x3c", "\\xab", "\\empty"]
WHITE = ["", "\t", "\n", "\r\n", " ", "  ", "\u2028", "\x85", "\xa0"]
ODD = ["\ufffd", "\u202e", "\u2066abc", "\u200d", "\x00", "\u0301", "{", "}}", "{%", '"', "'", "1. ", "\n1. "]
PARTS = ["<", "|", "im", "_end", "|>", ">", "[", "INST", "]", "</", "s"]
TOKENS = st.one_of(
    st.text(max_size=6),
    st.sampled_from([*SPECIAL, *MARKS, *WHITE, *ODD, *PARTS]),
    st.text(alphabet="\\ntxu3c<>|/[]A\n\t \xab\xbb", max_size=10),
)
MARKED = st.lists(st.tuples(TOKENS, st.booleans()), min_size=1, max_size=12)


@settings(max_examples=examples(3000), deadline=None)
@given(token=TOKENS)
@example(token="<|im_end|>")
def test_a_token_is_shown_on_one_line_and_can_be_read_back(token: str) -> None:
    shown = show_token(token)
    assert shown
    assert len(shown.splitlines()) == 1
    assert "\t" not in shown
    assert "\ufffd" not in shown
    assert read_token(shown) == token


@settings(max_examples=examples(1000), deadline=None)
@given(before=st.text(max_size=4), mark=st.sampled_from(SPECIAL), after=st.text(max_size=4))
def test_no_line_holds_a_mark_or_a_special_token(before: str, mark: str, after: str) -> None:
    assert mark not in token_lines([before + mark + after], [0])


@settings(max_examples=examples(2500), deadline=None)
@given(pairs=MARKED)
@example(pairs=[("", True), ("", False)])
@example(pairs=[(" ", True), ("a", True)])
@example(pairs=[(" a", True), ("a", True), ("", False), (" b", True)])
@example(pairs=[("<|", True), ("im_end", False), ("|>", True)])
def test_a_marked_text_can_be_read_back_token_by_token(pairs: list[tuple[str, bool]]) -> None:
    tokens, marked = [token for token, _ in pairs], [mark for _, mark in pairs]
    shown = marked_text(tokens, marked)
    assert read_marks(shown, tokens) == marked
    assert "".join(character for character, _ in read_units(shown)) == "".join(tokens)


@settings(max_examples=examples(1500), deadline=None)
@given(pairs=MARKED, special=st.sampled_from(SPECIAL), cuts=st.sets(st.integers(1, 10)), marks=st.integers(0, 1023))
def test_a_marked_text_is_one_line_without_a_special_token_even_of_several_tokens(
    pairs: list[tuple[str, bool]], special: str, cuts: set[int], marks: int
) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(special)), len(special)]
    parts = [special[start:stop] for start, stop in pairwise(places)]
    tokens = [*parts, *(token for token, _ in pairs)]
    marked = [*(bool(marks >> place & 1) for place in range(len(parts))), *(mark for _, mark in pairs)]
    shown = marked_text(tokens, marked)
    bare = shown.replace(OPEN, "").replace(CLOSE, "")
    assert not any(special in bare for special in SPECIAL)
    assert shown.isprintable()
    assert "\ufffd" not in shown
    assert shown.count(OPEN) == shown.count(CLOSE)


def test_a_marked_text_reads_like_the_text() -> None:
    tokens = ["The", " old", " river", " Ly", "nn", " rose", ".", "\n", "x", " «", "a", "»"]
    marked = [False, False, True, True, True, False, False, True, False, False, True, False]
    assert marked_text(tokens, marked) == r"The old «river Lynn» rose.«\n»x \xab«a»\xbb"


def test_empty_tokens_are_shown_only_where_one_of_them_is_marked() -> None:
    assert marked_text(["", "a", "", "b"], [False, True, False, False]) == "«a»b"
    assert marked_text(["", "a", "", "b"], [False, True, True, False]) == r"\empty«a\empty»b"


def test_ordinary_tokens_are_shown_as_they_are() -> None:
    ordinary = [" of", "'t", " 3", "<", ">", " <=", "[", "[1]", "é", "日本", "a < b", "  ", "unknown"]
    assert [show_token(token) for token in ordinary] == ordinary


def test_every_token_has_a_line_with_its_value() -> None:
    assert token_lines(["a\tb", "\n", ""], [0, 10, "unknown"]) == "a\\tb\t0\n\\n\t10\n\\empty\tunknown\n"


def test_activations_become_integers_by_the_formula() -> None:
    rows = [np.array([-3.0, 0.0, 0.79, 0.8, 7.99, 8.0], dtype=np.float32), np.array([np.nan, 4.0], dtype=np.float32)]
    assert normalised(rows) == [[0, 0, 0, 1, 9, 10], [0, 5]]


@pytest.mark.parametrize("values", [[-1.0, 0.0], [np.nan, np.nan], [-5.0, np.nan]])
def test_without_a_positive_activation_all_are_zero(values: list[float]) -> None:
    assert normalised([np.array(values, dtype=np.float32)]) == [[0, 0]]


@pytest.mark.parametrize("prompt_id", ["explain/token_activation.v1", "simulate/all_at_once.v1"])
def test_the_few_shot_examples_are_three_neurons_of_two_records_that_use_the_whole_scale(prompt_id: str) -> None:
    neurons = few_shot_neurons(Prompt(prompt_id))
    assert [len(neuron.records) for neuron in neurons] == [2, 2, 2]
    assert len({neuron.explanation for neuron in neurons}) == 3
    for neuron in neurons:
        values = [value for record in neuron.records for value in record.activations]
        assert (min(values), max(values)) == (0, 10)
        for record in neuron.records:
            assert len(record.tokens) == len(record.activations)
            assert any(record.activations[record.revealed :])
            assert 0 < record.revealed < len(record.tokens)
