"""Numbers that the model writes: rows in, rows out, and the alternatives at each number."""

import asyncio
import math
import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.llm.engine import Completion, ReplyToken, Request
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.few_shot import show_token
from stages.settings import Simulate
from stages.simulate.simulation import Simulation
from stages.simulate.written_numbers import GeneratedSimulator
from tests.stages.simulate.doubles import DoubleEngine, rows_reply


def made(engine: DoubleEngine | None = None, pack: int = 10) -> GeneratedSimulator:
    return GeneratedSimulator(Simulate(pack=pack), Asker(engine or DoubleEngine()), Prompt("simulate/generated.v1"))


request, read_reply = made().request, made().read
HOSTILE = ["\n", "\t", "", "1:", "Text 1", "<", "|", ">", "<|im_end|>", "\ufffd", "\\t", " 10", "Neuron 4", " of"]
TOKENS = st.sampled_from(HOSTILE) | st.text(max_size=4)
TEXTS = st.lists(st.lists(TOKENS, min_size=1, max_size=20), min_size=1, max_size=5)
TEXT = [list("abcdefghij"), list("kl")]
ROWS = [[1, 0, 0, 3, 0, 0, 0, 10], [0, 2], [5, 6]]


def rows_asked(asked: Request) -> list[list[str]]:
    """The cells of each row in the last message, whose numbers must run from 1."""
    lines = [line for line in asked.messages[-1].content.split("\n")[1:] if not re.fullmatch(r"Text \d+", line)]
    assert [line.split(":")[0] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]
    return [line.split(":", 1)[1].split("\t") for line in lines]


def values(results: Sequence[Simulation]) -> list[list[float] | str]:
    return [result.error if result.expected is None else result.expected.tolist() for result in results]


def reply(text: str, tokens: Sequence[ReplyToken] = (), finished: bool = True) -> Completion:
    return Completion(text, 100, 10, finished, tuple(tokens))


@given(texts=TEXTS)
def test_each_number_returns_to_its_own_token(texts: list[list[str]]) -> None:
    def write(asked: Request) -> str:
        return rows_reply([[len(cell) % 11 for cell in row] for row in rows_asked(asked)])

    results = asyncio.run(made(DoubleEngine(write), 3).simulate("x", texts))
    assert values(results) == [[float(len(show_token(token)) % 11) for token in text] for text in texts]
    assert all(result.coverage is not None and (result.coverage == 1).all() for result in results)


def test_all_prompts_begin_alike() -> None:
    one, other = request("rivers", TEXT), request("verbs\nin", [["z"]], 1)
    assert one.messages[:-1] == other.messages[:-1]
    assert other.messages[-1].content == "Neuron 4 responds to verbs in\nText 1\n1:z"
    assert one.logprobs == 20


def test_the_few_shot_replies_are_right_by_the_rules_for_replies() -> None:
    messages = request("x", TEXT).messages
    for asked, answer in zip(messages[1:-1:2], messages[2:-1:2], strict=True):
        parts = [part.splitlines() for part in re.split(r"Text \d+\n", asked.content)[1:]]
        texts = [[cell for row in rows for cell in row.split(":", 1)[1].split("\t")] for rows in parts]
        assert all(result.expected is not None for result in read_reply(reply(answer.content), texts))


@pytest.mark.parametrize(
    "around",
    ["{}", "Here are the rows:\n```\n{}\n```\nIn row 2: mostly zeros.", "<think>\n1. look\n</think>\n{}\n"],
)
def test_prose_and_fences_around_the_rows_do_no_harm(around: str) -> None:
    found = values(read_reply(reply(around.format(rows_reply(ROWS))), TEXT))
    assert found == [[1, 0, 0, 3, 0, 0, 0, 10, 0, 2], [5, 6]]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (rows_reply(ROWS[:2]), ["", "row 3 occurs 0 times"]),
        (rows_reply([*ROWS, [1, 1]]), ["row 4 where rows 1 to 3", "row 4 where rows 1 to 3"]),
        (rows_reply(ROWS, first=0), ["a row 0", "a row 0"]),
        (rows_reply(ROWS) + "\n3: 5 6", ["", "row 3 occurs 2 times"]),
        (rows_reply([ROWS[0][:7], *ROWS[1:]]), ["row 1 has 7 numbers for 8 tokens", ""]),
        (rows_reply([ROWS[0], [0, 11], ROWS[2]]), ["'11' stands for a number", ""]),
        (rows_reply([ROWS[0], [0, -1], ROWS[2]]), ["'-1' stands for a number", ""]),
        (rows_reply(ROWS[:2]) + "\n3: 0.5 6", ["", "'0.5' stands for a number"]),
        (rows_reply(ROWS[:2]) + "\n3: nan 6", ["", "row 3 occurs 0 times"]),
        ("I cannot do that.", ["row 1 occurs 0 times", "row 3 occurs 0 times"]),
        ("", ["row 1 occurs 0 times", "row 3 occurs 0 times"]),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_is_kept(text: str, faults: list[str]) -> None:
    for result, fault in zip(read_reply(reply(text), TEXT), faults, strict=True):
        assert fault in result.error
        assert (result.expected is None) == bool(fault)


def test_a_reply_cut_in_a_row_is_no_short_row() -> None:
    cut = reply(rows_reply(ROWS)[:-2], finished=False)
    assert "row 3 has 1 numbers for 2 tokens" in read_reply(cut, TEXT)[1].error
    cut = reply(rows_reply(ROWS[:2]), finished=False)
    assert "cut after 10 tokens" in read_reply(cut, TEXT)[1].error


def alternatives(**chances: float) -> tuple[tuple[str, float], ...]:
    return tuple((text.replace("_", " ").replace("n", ""), math.log(chance)) for text, chance in chances.items())


def one(tokens: Sequence[ReplyToken]) -> tuple[float, float]:
    """Expected value and coverage of the one number of a reply."""
    (result,) = read_reply(reply("".join(token.text for token in tokens), tokens), [["a"]])
    assert result.expected is not None
    assert result.coverage is not None
    return float(result.expected[0]), float(result.coverage[0])


def test_the_expected_value_is_the_mean_over_the_alternatives_that_are_numbers() -> None:
    label = ReplyToken("1:", alternatives(n1=1.0))
    split = [label, ReplyToken(" ", alternatives(_=1.0)), ReplyToken("8", alternatives(n8=0.5, n0=0.3, x=0.2))]
    assert one(split) == pytest.approx((0.5 * 8 / 0.8, 0.8))
    joined = [label, ReplyToken(" 8", alternatives(_8=0.5, _10=0.25, n8=0.1, xy=0.15))]
    assert one(joined) == pytest.approx((0.5 / 0.75 * 8 + 0.25 / 0.75 * 10, 0.75))


@pytest.mark.parametrize("written", ["1", "10"])
def test_a_ten_of_two_tokens_shares_the_one_by_the_chance_of_the_zero(written: str) -> None:
    first = ReplyToken("1", alternatives(n1=0.6, n0=0.4))
    behind = ReplyToken(*("0", alternatives(n0=0.25)) if written == "10" else ("\n", alternatives(n0=0.25)))
    assert one([ReplyToken("1: ", ()), first, behind]) == pytest.approx((0.6 * 0.75 + 0.6 * 0.25 * 10, 1.0))


@pytest.mark.parametrize(
    "tokens",
    [[], [ReplyToken("1: 7", alternatives(n9=1.0))], [ReplyToken("1: ", ()), ReplyToken("7", alternatives(x=1.0))]],
)
def test_without_alternatives_of_its_own_a_number_stands_as_written(tokens: list[ReplyToken]) -> None:
    (result,) = read_reply(reply("1: 7", tokens), [["a"]])
    assert result.expected == pytest.approx(np.array([7.0]))
    assert result.coverage == pytest.approx(np.array([1.0]))


def test_a_wrong_sequence_is_asked_again_by_itself() -> None:
    def write(asked: Request) -> str:
        rows = [[1] * len(row) for row in rows_asked(asked)]
        return rows_reply(rows if asked.attempt else [*rows[:-1], rows[-1][:-1]])

    engine = DoubleEngine(write)
    results = asyncio.run(made(engine, 5).simulate("x", TEXT))
    assert values(results) == [[1.0] * 10, [1.0] * 2]
    assert [rows_asked(asked)[0][0] for asked in engine.requests] == ["a", "k"]
