"""One token at a time: a prompt for each token, and its number back at its place."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.llm.engine import NumberPrompt, NumberScores
from pipeline.prompts import Prompt
from stages.few_shot import show_token
from stages.simulate.read_numbers import last_number_prompt
from tests.stages.simulate.doubles import DoubleEngine, certain, simulator

TOKENS = st.sampled_from(["<", "|im_end|>", "end>", "\n", "", "\t", "a"]) | st.text(max_size=4)
TEXTS = st.lists(st.lists(TOKENS, min_size=1, max_size=6), max_size=4)


def passage(explanation: str, tokens: list[str]) -> NumberPrompt:
    return last_number_prompt(Prompt("simulate/one_at_a_time.v1"), explanation, tokens)


def last_token(asked: NumberPrompt) -> str:
    return asked.messages[-1].content.rsplit("\nLast token: ", 1)[1]


def scored(asked: NumberPrompt) -> NumberScores:
    return certain(len(last_token(asked)) % 11)


@given(sequences=TEXTS)
def test_each_number_returns_to_its_own_token(sequences: list[list[str]]) -> None:
    engine = DoubleEngine(score=scored)
    results = asyncio.run(simulator("one_at_a_time", engine).simulate("x", sequences))
    assert engine.score_calls == 1
    for tokens, result in zip(sequences, results, strict=True):
        assert result.expected is not None
        assert result.expected.tolist() == [len(show_token(token)) % 11 for token in tokens]
        assert (result.prompt_tokens, result.completion_tokens) == (7 * len(tokens), len(tokens))


@given(tokens=st.lists(st.sampled_from(["<", "|", "im_end", "|>", "end", ">", "\n"]) | st.text(max_size=3), min_size=1))
def test_a_text_has_one_line_and_no_mark_even_where_tokens_join_to_one(tokens: list[str]) -> None:
    lines = passage("x", tokens).messages[-1].content.split("\n")
    assert len(lines) == 3
    assert lines[1] == "Text: " + show_token("".join(tokens))
    assert "<|im_end|>" not in lines[1]


def test_a_passage_is_a_conversation_whose_reply_is_the_number() -> None:
    asked = passage("rivers\nand", [" a", " boat"])
    assert (asked.reply, asked.slots) == ((), (0,))
    assert asked.messages[-1].content == "Neuron 4 responds to rivers and\nText:  a boat\nLast token:  boat"


def test_all_prompts_begin_alike_and_those_of_a_text_go_on_alike() -> None:
    first, second, other = passage("x", [" a"]), passage("x", [" a", " b"]), passage("y", ["z"])
    assert first.messages[:-1] == second.messages[:-1] == other.messages[:-1]
    assert second.messages[-1].content.startswith("Neuron 4 responds to x\nText:  a")


def test_a_sequence_with_an_unscored_token_has_an_error_and_no_zeros() -> None:
    def score(asked: NumberPrompt) -> NumberScores:
        if last_token(asked) == "b":
            return NumberScores(None, None, "time-out", 3)
        return certain(2, coverage=0.0 if last_token(asked) == "c" else 0.5)

    results = asyncio.run(
        simulator("one_at_a_time", DoubleEngine(score=score)).simulate("x", [["a", "b"], ["a", "c"], ["a"]])
    )
    assert [result.error for result in results] == [
        "1 of 2 tokens were not scored: time-out",
        "no number found at 1 of 2 tokens",
        "",
    ]
    assert [result.expected is None for result in results] == [True, True, False]
    assert results[0].prompt_tokens == 10
    assert results[2].coverage == pytest.approx(np.array([0.5]))
