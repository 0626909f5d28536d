"""What the probe finds out about servers that ignore, refuse or cap what they are asked for."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.errors import UserError
from pipeline.llm.endpoint.client import context_of
from pipeline.llm.endpoint.completions import EndpointCapabilities, PromptLogprobs
from tests.pipeline.llm.endpoint.model_server import Json, ModelServer, serving
from tests.pipeline.llm.endpoint.opened import opened
from tests.pipeline.llm.endpoint.served_model import ServedModel


def probed(server: ModelServer, folder: Path, **settings: Any) -> EndpointCapabilities:
    async def main() -> EndpointCapabilities:
        async with opened(server.url, folder, **settings) as engine:
            return await engine.capabilities()

    return asyncio.run(main())


def test_everything_that_works_is_found(model: ServedModel, tmp_path: Path, tokenizer_folder: str) -> None:
    with serving(model, context=400) as server:
        can = probed(server, tmp_path, tokenizer=tokenizer_folder)
    assert replace(can, reading=PromptLogprobs()) == EndpointCapabilities(
        20, reply_numbers=True, prompt_numbers=True, json_schema=True, n=True, seed=True, context=400
    )
    assert (can.reading.way, can.reading.listed, can.reading.token_ids) == ("prompt_logprobs", 20, True)
    assert TypeAdapter(EndpointCapabilities).validate_python(json.loads(json.dumps(asdict(can)))) == can


def test_what_is_ignored_in_silence_is_found_to_be_missing(
    model: ServedModel, tmp_path: Path, tokenizer_folder: str
) -> None:
    ignored = {"logprobs": 0, "prompt_logprobs": False, "echo": False, "json_schema": False, "n": False, "seed": False}
    with serving(model, **ignored) as server:
        can = probed(server, tmp_path, tokenizer=tokenizer_folder)
    assert can == EndpointCapabilities()


def test_what_is_refused_is_left_out_of_later_requests(model: ServedModel, tmp_path: Path) -> None:
    refused = frozenset({"max_tokens", "temperature", "stop", "seed", "n", "response_format", "logprobs"})
    with serving(model, refused=refused) as server:
        can = probed(server, tmp_path)
    assert can == EndpointCapabilities(limit_field="max_completion_tokens", temperature=False, stop=False)


def test_fewer_alternatives_are_asked_for_where_many_are_refused(model: ServedModel, tmp_path: Path) -> None:
    with serving(model, logprobs=5) as server:
        assert probed(server, tmp_path).logprobs == 5


def test_echo_is_the_second_way_to_read_a_prompt(model: ServedModel, tmp_path: Path, tokenizer_folder: str) -> None:
    with serving(model, prompt_logprobs=False) as server:
        reading = probed(server, tmp_path, tokenizer=tokenizer_folder).reading
    assert reading.way == "echo"
    assert [text for _, text in reading.spelling] == list("0123456789")


def test_prompts_are_not_read_without_a_tokenizer(model: ServedModel, tmp_path: Path) -> None:
    with serving(model) as server:
        assert probed(server, tmp_path).reading == PromptLogprobs()
        assert not any("prompt" in body for _, body in server.seen)


def test_a_model_without_chat_is_asked_for_plain_completions(model: ServedModel, tmp_path: Path) -> None:
    with serving(model, chat=False) as server:
        can = probed(server, tmp_path)
    assert not can.chat
    assert not can.json_schema
    assert can.logprobs > 1


def test_a_server_that_counts_one_of_several_replies_is_asked_for_one(model: ServedModel, tmp_path: Path) -> None:
    def count_one(path: str, body: Json, reply: Json) -> Json:
        return reply | {"usage": {"prompt_tokens": 9, "completion_tokens": min(8, body["max_tokens"])}}

    with serving(model) as server:
        server.spoil = count_one
        assert not probed(server, tmp_path).n


def test_one_odd_reply_does_not_count_as_missing(model: ServedModel, tmp_path: Path, tokenizer_folder: str) -> None:
    """The first reply to each new request is spoilt in some way that is no fault by itself."""
    times: Counter[str] = Counter()

    def spoil(path: str, body: Json, reply: Json) -> Json:
        times[repr(sorted(body.items(), key=str))] += 1
        if times[repr(sorted(body.items(), key=str))] > 1 or "max_tokens" not in body:
            return reply
        choices = [choice | {"logprobs": None, "prompt_logprobs": None} for choice in reply["choices"][:1]]
        for choice in choices:
            choice.update({"message": {"content": ""}} if "message" in choice else {"text": ""})
        return reply | {"choices": choices}

    with serving(model) as server:
        server.spoil = spoil
        can = probed(server, tmp_path, tokenizer=tokenizer_folder)
    assert (can.logprobs, can.reply_numbers, can.prompt_numbers, can.json_schema, can.n, can.seed) == (20, *[True] * 5)


@pytest.mark.parametrize("code", [400, 500])
def test_what_is_found_under_faults_is_right_and_asked_again_by_the_next_process(
    model: ServedModel, tmp_path: Path, code: int
) -> None:
    """Each new request fails at first."""
    times: Counter[str] = Counter()

    def spoil(path: str, body: Json, reply: Json) -> Json:
        times[repr(sorted(body.items(), key=str))] += 1
        first = times[repr(sorted(body.items(), key=str))] == 1
        return {"error": {"code": code, "message": "busy"}} if first else reply

    with serving(model) as server:
        server.spoil = spoil
        can = probed(server, tmp_path)
        assert (can.logprobs, can.json_schema, can.n, can.seed, can.stop, can.temperature) == (20, *[True] * 5)
        asked = len(server.seen)
        server.spoil = None
        assert probed(server, tmp_path) == can
        assert len(server.seen) > asked, "it is doubtful, and asked again"
        asked = len(server.seen)
        assert probed(server, tmp_path) == can
        assert len(server.seen) == asked, "what was found without faults is kept"


def test_a_server_that_does_not_answer_is_not_called_unable(model: ServedModel, tmp_path: Path) -> None:
    def spoil(path: str, body: Json, reply: Json) -> Json:
        return {"nothing": "of use"} if "response_format" in body else reply

    with serving(model) as server:
        server.spoil = spoil
        with pytest.raises(UserError, match="could not be found out"):
            probed(server, tmp_path, retries=0)
        server.spoil = None
        assert probed(server, tmp_path).json_schema, "what failed was not kept"


def test_the_probe_is_kept_and_a_wish_makes_it_anew(model: ServedModel, tmp_path: Path) -> None:
    async def twice(url: str) -> tuple[EndpointCapabilities, EndpointCapabilities]:
        async with opened(url, tmp_path) as engine:
            return await engine.capabilities(), await engine.capabilities(anew=True)

    with serving(model, json_schema=False) as server:
        assert not probed(server, tmp_path).json_schema
        asked = len(server.seen)
        server.now(json_schema=True)
        known, anew = asyncio.run(twice(server.url))
        assert not known.json_schema
        assert anew.json_schema
        assert len(server.seen) > asked
        asked = len(server.seen)
    assert probed(server, tmp_path).json_schema, "the newest is kept, and no server is needed to read it"


def test_an_unknown_model_and_a_wrong_key_are_told_at_once(
    model: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-wrong-key")
    with serving(model, key="sk-right") as server:
        with pytest.raises(UserError, match="key") as told:
            probed(server, tmp_path, key_variable="TINY_KEY")
        assert "sk-wrong" not in str(told.value)
        assert not server.seen
    with serving(model) as server:
        with pytest.raises(UserError, match="large"):
            probed(server, tmp_path, model="large")
        assert len(server.seen) == 2, "one request for chat, one for plain completions"


@pytest.mark.parametrize(
    ("entry", "context"),
    [
        ({"max_model_len": 8192}, 8192),
        ({"meta": {"n_ctx": 4096, "n_ctx_train": 131072}}, 4096),
        ({"meta": {"n_ctx_train": 131072}}, None),
        ({"context_length": 32768}, 32768),
        ({"max_model_len": "8192"}, None),
        ({}, None),
    ],
)
def test_the_context_is_read_from_the_list_of_models(entry: Json, context: int | None) -> None:
    other = {"id": "other", "max_model_len": 1}
    assert context_of([other, {"id": "mine"} | entry], "mine") == context
    assert context_of([{"id": "another name"} | entry], "mine") == context
    assert context_of([other, other], "mine") is None
    assert context_of([], "mine") is None
