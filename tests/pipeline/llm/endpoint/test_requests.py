"""Requests as an endpoint gets them."""

from dataclasses import replace

import pytest

from pipeline.llm.endpoint.completions import EndpointCapabilities, asks
from pipeline.llm.engine import Message, Request
from pipeline.llm.prompt_encoder import PromptEncoder, plain_texts
from tests.pipeline.llm.conftest import byte_tokenizer

ALL = EndpointCapabilities(n=True, seed=True, json_schema=True, logprobs=20)
REQUEST = Request(
    (Message("system", " Be brief."), Message("user", "\nHello")), 30, n=3, temperature=0.7, stop=("\n",), seed=5,
    schema={"type": "object"}, logprobs=50,
)  # fmt: skip


def test_one_request_asks_for_all_replies_where_the_server_can() -> None:
    (ask,) = asks(REQUEST, ALL)
    assert ask.path == "/chat/completions"
    assert ask.attempt == 0
    assert ask.body == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "max_tokens": 30,
        "temperature": 0.7,
        "stop": ["\n"],
        "n": 3,
        "seed": 5,
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "reply", "strict": True, "schema": {"type": "object"}},
        },
    }


def test_only_what_works_is_asked_for() -> None:
    poor = EndpointCapabilities(limit_field="max_completion_tokens", temperature=False, stop=False)
    (ask, *_) = asks(REQUEST, poor)
    assert set(ask.body) == {"messages", "max_completion_tokens"}


@pytest.mark.parametrize("seed", [True, False])
def test_without_n_each_reply_is_a_draw_of_its_own(seed: bool) -> None:
    can = replace(ALL, n=False, seed=seed)
    found = asks(REQUEST, can)
    assert [ask.body["max_tokens"] for ask in found] == [30, 30, 30]
    draws = {(ask.body.get("seed"), ask.attempt) for ask in found}
    assert len(draws) == 3
    again = {(ask.body.get("seed"), ask.attempt) for ask in asks(replace(REQUEST, attempt=1), can)}
    other = {(ask.body.get("seed"), ask.attempt) for ask in asks(replace(REQUEST, seed=6_000), can)}
    assert not draws & again
    assert not draws & other
    assert all(("seed" in ask.body) is seed for ask in found)


def test_a_greedy_request_is_sent_once_whatever_its_seed() -> None:
    greedy = replace(REQUEST, temperature=0.0)
    (ask,), (other,) = asks(greedy, ALL), asks(replace(greedy, seed=9, n=1), ALL)
    assert (ask.body, ask.attempt) == (other.body, other.attempt)
    assert "seed" not in ask.body


def test_messages_are_joined_as_a_tokenizer_without_chat_has_them() -> None:
    messages = (
        Message("system", "One"), Message("user", "Two"), Message("assistant", "three"), Message("user", "Four"),
        Message("assistant", "\tfive"),
    )  # fmt: skip
    tokenizer = byte_tokenizer()
    ids = PromptEncoder(tokenizer).conversation(messages).ids
    assert (
        tokenizer.decode(ids, skip_special_tokens=True)
        == "".join(plain_texts(messages))
        == "One\n\nTwo three\n\nFour\tfive"
    )
