"""Requests are repeated until a reply can be used, and a stage stops where most replies cannot."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from pipeline.errors import UserError
from pipeline.llm.engine import EngineError, Message, NumberPrompt, NumberScores, PromptTooLong, Refused, Request
from stages.asking import ATTEMPTS, FIRST_REPLIES, Asker, Reply, Use, json_objects
from tests.stages.simulate.doubles import DoubleEngine, certain


def request(attempt: int) -> Request:
    return Request((Message("user", "?"),), 10, attempt=attempt)


def take(reply: Reply) -> Use:
    return {"good": Use.ALL, "half": Use.SOME}.get(reply.text, Use.NOTHING)


def ask(*replies: str | Exception) -> tuple[list[int], EngineError | None]:
    """The attempts that were made, and the error that ended them."""
    prepared = iter(replies)
    engine = DoubleEngine(write=lambda _: next(prepared))
    error = asyncio.run(Asker(engine).ask(request, take))
    return [asked.attempt for asked in engine.requests], error


def test_a_request_is_repeated_until_all_is_there() -> None:
    assert ask("good") == ([0], None)
    assert ask("bad", "half", "good") == ([0, 1, 2], None)
    assert ask(Refused("no"), "good") == ([0, 1], None)


def test_after_a_bounded_number_of_requests_it_ends() -> None:
    assert ask(*["bad"] * 9) == (list(range(ATTEMPTS)), None)


def test_another_error_ends_it_at_once_and_is_given_back() -> None:
    attempts, error = ask("bad", EngineError("gave up"))
    assert attempts == [0, 1]
    assert str(error) == "gave up"


def test_what_a_refusal_took_is_told() -> None:
    seen: list[Reply] = []
    prepared: Iterator[str | Exception] = iter([Refused("no", 40, 3), "good"])

    def see(reply: Reply) -> Use:
        seen.append(reply)
        return take(reply)

    asyncio.run(Asker(DoubleEngine(write=lambda _: next(prepared))).ask(request, see))
    assert [(reply.text, reply.prompt_tokens, reply.completion_tokens) for reply in seen] == [
        ("no", 40, 3),
        ("good", 100, 10),
    ]


def test_a_stage_stops_where_most_of_its_replies_are_useless() -> None:
    engine = DoubleEngine(write=lambda _: "bad")
    asker = Asker(engine, 0.5)
    with pytest.raises(
        UserError, match=r"20 of 20 replies of double@1.*20 of them say 'bad'.*max_failure_share.*not paid for again"
    ):
        for _ in range(99):
            asyncio.run(asker.ask(request, take))
    assert len(engine.requests) == FIRST_REPLIES


@pytest.mark.parametrize(
    ("replies", "share", "stops"),
    [
        (["good"] * 10 + ["bad"] * 10, 0.5, False),
        (["good"] * 9 + ["bad"] * 11, 0.5, True),
        (["half"] * 10 + ["bad"] * 10, 0.5, False),
        (["bad"] * 19, 0.5, False),
        (["bad"] * 40, 1.0, False),
        (["good"] * 40 + ["bad"] * 41, 0.5, True),
    ],
)
def test_the_share_is_a_setting_and_what_can_be_used_in_part_is_no_failure(
    replies: list[str], share: float, stops: bool
) -> None:
    prepared = iter(replies)
    asker = Asker(DoubleEngine(write=lambda _: next(prepared)), share)
    with pytest.raises(UserError) if stops else contextlib.nullcontext():
        for _ in replies:
            asyncio.run(asker.ask(request, take, attempts=1))


def test_requests_that_fail_count_and_the_most_frequent_error_is_told() -> None:
    errors = [EngineError("status 500"), EngineError("status 500"), EngineError("no reply")] * 9
    prepared = iter(errors)
    asker = Asker(DoubleEngine(write=lambda _: next(prepared)), 0.5)
    with pytest.raises(UserError, match=r"20 of 20 replies .*; 14 of them say 'status 500'"):
        for _ in errors:
            asyncio.run(asker.ask(request, take))


def test_prompts_that_are_too_long_do_not_count_as_a_shorter_one_may_follow() -> None:
    asker = Asker(DoubleEngine(write=lambda _: PromptTooLong("9 tokens")), 0.0)
    for _ in range(2 * FIRST_REPLIES):
        asyncio.run(asker.ask(request, take))


@pytest.mark.parametrize(
    ("replies", "useless"),
    [
        (["bad", "bad", "bad"], [0, 1, 2]),
        (["bad", "half", "bad"], [0, 2]),
        (["bad", "good"], []),
        (["bad", EngineError("gave up")], []),
    ],
)
def test_replies_of_no_use_are_marked_where_all_was_in_vain(replies: list[str | Exception], useless: list[int]) -> None:
    prepared = iter(replies)
    engine = DoubleEngine(write=lambda _: next(prepared))
    asyncio.run(Asker(engine).ask(request, take))
    assert [one.attempt for one in engine.useless] == useless


def test_prompts_without_numbers_are_useless_replies() -> None:
    def score(asked: NumberPrompt) -> NumberScores:
        return NumberScores(None, None, "no numbers") if asked.reply else certain(1)

    asker = Asker(DoubleEngine(score=score), 0.5)
    asked = [NumberPrompt((), ("x",) if number % 3 else (), (0,)) for number in range(FIRST_REPLIES)]
    with pytest.raises(UserError, match="no numbers"):
        asyncio.run(asker.score(asked))


def test_objects_in_replies_hold_only_text_that_a_table_can_hold() -> None:
    assert list(json_objects(r'Here: {"\ud83d": ["\ude00 x", {"a": "\ud83d\ude00"}], "n": 1e999}')) == [
        {"\ufffd": ["\ufffd x", {"a": "\N{GRINNING FACE}"}], "n": float("inf")}
    ]


@pytest.mark.parametrize("hard", ['{"a": ' + "[" * 100_000, '{"a": 1' + "0" * 100_000 + "}"])
def test_what_no_parser_reads_is_no_object(hard: str) -> None:
    assert list(json_objects(hard)) == []
