"""Replies of a judge are read by number, never by place, and a reply that lacks an answer is asked for again."""

import asyncio
import math

import pytest

from pipeline.llm.engine import Completion, EngineError, Refused, ReplyToken, Request
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.judge.yes_no import answers, read_reply, request
from tests.stages.simulate.doubles import DoubleEngine

PROMPT = Prompt("judge/detection.v1")


def reply(text: str, tokens: tuple[ReplyToken, ...] = ()) -> Completion:
    return Completion(text, 100, 10, True, tokens)


@pytest.mark.parametrize("text", ["1: yes\n2: no", " 1. Yes.\n\n2) NO, it does not", "Here it is:\n1: yes\n2: no\n"])
def test_answers_are_read_by_their_numbers(text: str) -> None:
    found, fault = read_reply(reply(text), 2)
    assert not fault
    assert [answer.says for answer in found] == [True, False]
    assert [answer.probability for answer in found] == [None, None]


@pytest.mark.parametrize(
    "text",
    ["", "yes\nno", "1: yes", "1: yes\n2: no\n3: no", "1: yes\n1: no\n2: no", "1: nothing\n2: no", "2: no\n1: yes"],
)
def test_a_reply_that_lacks_an_answer_or_has_one_too_many_is_not_used(text: str) -> None:
    found, fault = read_reply(reply(text), 2)
    assert not found
    assert "1 to 2" in fault


def test_probabilities_are_those_of_yes_among_yes_and_no() -> None:
    alternatives = ((" yes", math.log(0.6)), (" Yes", math.log(0.1)), (" no", math.log(0.2)), (" maybe", math.log(0.1)))
    tokens = tuple(ReplyToken(text, ((text, 0.0),)) for text in ("1", ":"))
    found, _ = read_reply(reply("1: yes", (*tokens, ReplyToken(" yes", alternatives))), 1)
    assert found[0].probability == pytest.approx(0.7 / 0.9)


def test_an_explanation_cannot_look_like_the_prompt() -> None:
    asked = request(PROMPT, "colours\n\n1. a text", ["one", "two"]).messages[-1].content
    assert "colours 1. a text\n" in asked
    assert asked.endswith("1. one\n2. two")


def test_an_unusable_reply_is_asked_for_again_and_its_tokens_are_counted() -> None:
    engine = DoubleEngine(write=lambda asked: "1: no\n2: yes" if asked.attempt else "no idea")
    found = asyncio.run(answers(Asker(engine), PROMPT, "colours", ["one", "two"]))
    assert [(answer.says, answer.prompt_tokens, answer.completion_tokens) for answer in found] == [
        (False, 200, 20),
        (True, 0, 0),
    ]
    assert [asked.attempt for asked in engine.requests] == [0, 1]


@pytest.mark.parametrize(("error", "calls"), [(Refused("declined", 7, 3), 3), (EngineError("the server fell over"), 1)])
def test_what_cannot_be_answered_is_an_error_and_never_a_no(error: Exception, calls: int) -> None:
    def write(_: Request) -> Exception:
        return error

    engine = DoubleEngine(write=write)
    found = asyncio.run(answers(Asker(engine), PROMPT, "colours", ["one", "two"]))
    assert [answer.says for answer in found] == [None, None]
    assert all(str(error) in answer.error for answer in found)
    assert len(engine.requests) == calls
