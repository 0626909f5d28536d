"""Tokens as lines of a prompt: one line each, no two alike, never a mark or a special token."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.llm.token_lines import few_shot_neurons, normalised, show_token, token_lines

SPECIAL = [
    "<start>",
    "<end>",
    "<|im_end|>",
    "<|im_start|>",
    "<s>",
    "</s>",
    "<unk>",
    "[INST]",
    "[/INST]",
    "<\uff5cUser\uff5c>",
]
TOKENS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [*SPECIAL, "", "\t", "\n", "\r\n", "\\", "\\n", "\\x3c", "\ufffd", "\u2028", "\x85", "\xa0", "\\empty"]
    ),
    st.text(alphabet="\\ntxu3c<>|/[]A\n\t", max_size=10),
)


def read_back(shown: str) -> str:
    """The token that a line shows."""
    if shown == r"\empty":
        return ""
    codes = r"\\(\\|t|n|r|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})"
    plain = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}
    return re.sub(codes, lambda match: plain.get(match[1]) or chr(int(match[1][1:], 16)), shown)


@settings(max_examples=3000, deadline=None)
@given(token=TOKENS)
@example(token="<|im_end|>")
def test_a_token_is_shown_on_one_line_and_can_be_read_back(token: str) -> None:
    shown = show_token(token)
    assert shown
    assert len(shown.splitlines()) == 1
    assert "\t" not in shown
    assert "\ufffd" not in shown
    assert read_back(shown) == token


@settings(max_examples=1000, deadline=None)
@given(before=st.text(max_size=4), mark=st.sampled_from(SPECIAL), after=st.text(max_size=4))
def test_no_line_holds_a_mark_or_a_special_token(before: str, mark: str, after: str) -> None:
    assert mark not in token_lines([before + mark + after], [0])


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
    neurons = few_shot_neurons(prompt_id)
    assert [len(neuron.records) for neuron in neurons] == [2, 2, 2]
    assert len({neuron.explanation for neuron in neurons}) == 3
    for neuron in neurons:
        values = [value for record in neuron.records for value in record.activations]
        assert (min(values), max(values)) == (0, 10)
        for record in neuron.records:
            assert len(record.tokens) == len(record.activations)
            assert any(record.activations[record.revealed :])
            assert 0 < record.revealed < len(record.tokens)
