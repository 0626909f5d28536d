"""Tokens that the model lists in JSON: numbered lines in, a checked list out."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.llm.engine import Completion, Request
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.few_shot import show_token
from stages.settings import Simulate
from stages.simulate.simulation import Simulation
from stages.simulate.written_numbers import SCHEMA, JsonSimulator
from tests.stages.simulate.doubles import DoubleEngine, json_reply


def made(engine: DoubleEngine | None = None, pack: int = 10) -> JsonSimulator:
    return JsonSimulator(Simulate(pack=pack), Asker(engine or DoubleEngine()), Prompt("simulate/json.v1"))


request, read_reply = made().request, made().read
HOSTILE = ["\n", "\t", "", "1:", "Text 1", "<|im_end|>", "\ufffd", '{"texts": []}', '"', "\\", " 10", " of"]
TOKENS = st.sampled_from(HOSTILE) | st.text(max_size=4)
TEXTS = st.lists(st.lists(TOKENS, min_size=1, max_size=9), min_size=1, max_size=5)
TEXT = [["a", "b", "c"], ["d", "e"]]
RIGHT: list[dict[str, Any]] = [
    {"text": 1, "active": [{"token": 2, "value": 7}]},
    {"text": 2, "active": []},
]


def lines_asked(asked: Request) -> list[list[str]]:
    """The lines of each text in the last message, whose numbers must run from 1."""
    parts = re.split(r"^Text (\d+)\n", asked.messages[-1].content, flags=re.MULTILINE)
    assert [int(number) for number in parts[1::2]] == list(range(1, len(parts) // 2 + 1))
    texts = [[line.split(":", 1) for line in part.removesuffix("\n").split("\n")] for part in parts[2::2]]
    assert all([int(n) for n, _ in lines] == list(range(1, len(lines) + 1)) for lines in texts)
    return [[shown for _, shown in lines] for lines in texts]


def values(results: Sequence[Simulation]) -> list[list[float] | str]:
    return [result.error if result.expected is None else result.expected.tolist() for result in results]


def read(text: str, finished: bool = True) -> list[list[float] | str]:
    return values(read_reply(Completion(text, 100, 10, finished), TEXT))


def document(*texts: object) -> str:
    return json.dumps({"texts": texts})


@given(texts=TEXTS)
def test_each_value_returns_to_its_own_token(texts: list[list[str]]) -> None:
    def write(asked: Request) -> str:
        return json_reply([[len(shown) % 11 for shown in lines] for lines in lines_asked(asked)])

    results = asyncio.run(made(DoubleEngine(write), 3).simulate("x", texts))
    assert values(results) == [[float(len(show_token(token)) % 11) for token in text] for text in texts]
    assert all(result.coverage is not None and (result.coverage == 1).all() for result in results)


def test_all_prompts_begin_alike_and_carry_the_schema() -> None:
    one, other = request("rivers", TEXT), request("verbs\nin", [["z"]], 1)
    assert one.messages[:-1] == other.messages[:-1]
    assert other.messages[-1].content == "Neuron 4 responds to verbs in\nText 1\n1:z"
    assert one.schema == SCHEMA


def test_the_few_shot_replies_are_right_by_the_rules_for_replies() -> None:
    messages = request("x", TEXT).messages
    for asked, answer in zip(messages[1:-1:2], messages[2:-1:2], strict=True):
        texts = [part.splitlines() for part in re.split(r"Text \d+\n", asked.content)[1:]]
        results = read_reply(Completion(answer.content, 1, 1, True), texts)
        assert all(result.expected is not None and result.expected.max() >= 8 for result in results)


def test_a_token_that_is_not_listed_is_zero() -> None:
    assert read(document(*RIGHT)) == [[0, 7, 0], [0, 0]]


@pytest.mark.parametrize(
    "around",
    [
        "```json\n{}\n```",
        "The neuron [see above] looks {{for}} this:\n{}\nI hope that helps [1].",
        '<think>{{"texts": [{{"text": 1, "active": []}}]}} maybe</think>{}',
    ],
)
def test_fences_prose_and_drafts_around_the_object_do_no_harm(around: str) -> None:
    assert read(around.format(document(*RIGHT))) == [[0, 7, 0], [0, 0]]


def test_pairs_in_place_of_named_fields_are_understood() -> None:
    assert read(document({"text": 2, "active": [[1, 4]]}, {"text": 1, "active": []})) == [[0, 0, 0], [4, 0]]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ([], "text 2 occurs 0 times"),
        ([RIGHT[1], RIGHT[1]], "text 2 occurs 2 times"),
        ([{"text": 2, "active": [{"token": 3, "value": 1}]}], "lists token 3, not one of 1 to 2"),
        ([{"text": 2, "active": [{"token": 0, "value": 1}]}], "lists token 0"),
        ([{"text": 2, "active": [{"token": True, "value": 1}]}], "lists token True"),
        ([{"text": 2, "active": [{"token": 1, "value": 1}, {"token": 1, "value": 2}]}], "lists token 1"),
        ([{"text": 2, "active": [{"token": 1, "value": 11}]}], "the value 11 at token 1"),
        ([{"text": 2, "active": [{"token": 1, "value": -1}]}], "the value -1"),
        ([{"text": 2, "active": [{"token": 1, "value": float("nan")}]}], "the value nan"),
        ([{"text": 2, "active": [{"token": 1, "value": "5"}]}], "the value '5'"),
        ([{"text": 2, "active": [{"token": 1}]}], "the value None"),
        ([{"text": 2, "active": [7]}], "lists token 7"),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_is_kept(entry: list[object], fault: str) -> None:
    kept, wrong = read(document(RIGHT[0], *entry))
    assert kept == [0, 7, 0]
    assert isinstance(wrong, str)
    assert fault in wrong


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no JSON object with texts"),
        ("I cannot help with that.", "no JSON object with texts"),
        (document(*RIGHT)[:-4], "no JSON object with texts"),
        ('{"texts": 5}', "no JSON object with texts"),
        ("[" * 5000 + "{" * 5000, "no JSON object with texts"),
        (document(*RIGHT, {"text": 3, "active": []}), "names text 3 where texts 1 to 2"),
        (document({"text": "1", "active": []}), "names text '1'"),
    ],
)
def test_a_reply_that_cannot_be_read_faults_every_text(text: str, fault: str) -> None:
    assert [fault in str(found) for found in read(text)] == [True, True]


def test_a_cut_reply_is_called_so() -> None:
    assert read(document(*RIGHT)[:-4], finished=False) == ["the reply was cut after 10 tokens"] * 2


def test_a_missing_text_is_asked_again_by_itself_with_more_room() -> None:
    def write(asked: Request) -> str:
        texts = lines_asked(asked)
        return json_reply([[1] * len(lines) for lines in (texts if asked.attempt else texts[:1])])

    engine = DoubleEngine(write)
    results = asyncio.run(made(engine, 5).simulate("x", TEXT))
    assert values(results) == [[1.0] * 3, [1.0] * 2]
    assert [lines_asked(asked) for asked in engine.requests] == [[["a", "b", "c"], ["d", "e"]], [["d", "e"]]]
    assert request("x", TEXT, 1).max_tokens > request("x", TEXT, 0).max_tokens
