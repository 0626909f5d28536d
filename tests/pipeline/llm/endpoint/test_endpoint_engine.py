"""The endpoint engine on a server with a real tiny model."""

import asyncio
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.llm.endpoint.response_cache import forget_useless
from pipeline.llm.engine import Completion, EngineError, Message, PromptTooLong, Request
from pipeline.llm.prompt_encoder import PromptEncoder
from tests.pipeline.llm.endpoint.model_server import Json, ModelServer, serving
from tests.pipeline.llm.endpoint.opened import opened
from tests.pipeline.llm.endpoint.served_model import ServedModel

REQUEST = Request((Message("system", "Be brief."), Message("user", "Count.")), 12, n=3, seed=3)


def replies(url: str, folder: Path, *requests: Request, **settings: Any) -> list[list[Completion]]:
    async def main() -> list[list[Completion]]:
        async with opened(url, folder, **settings) as engine:
            return list(await asyncio.gather(*(engine.complete(request) for request in requests)))

    return asyncio.run(main())


def sent(server: ModelServer, text: str = "Count.") -> list[Json]:
    """Bodies of the requests with this text."""
    return [body for _, body in server.seen if text in str(body.get("messages") or body.get("prompt"))]


def test_replies_marked_as_useless_are_asked_for_again_once_they_are_forgotten(
    model: ServedModel, tmp_path: Path
) -> None:
    kept = replace(REQUEST, messages=(Message("user", "Keep."),))

    async def mark(url: str) -> None:
        async with opened(url, tmp_path) as engine:
            await asyncio.gather(engine.complete(REQUEST), engine.complete(kept))
            engine.mark_useless([REQUEST])

    with serving(model, n=False) as server:
        asyncio.run(mark(server.url))
        replies(server.url, tmp_path, REQUEST, kept)
        assert len(sent(server)) == REQUEST.n, "until then they stand, so that a run that is repeated asks for nothing"
        forget_useless(tmp_path)
        replies(server.url, tmp_path, REQUEST, kept)
        assert len(sent(server)) == 2 * REQUEST.n
        assert len(sent(server, "Keep.")) == kept.n


def test_the_profile_is_what_the_probe_found(model: ServedModel, tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with opened(url, tmp_path) as engine:
            assert engine.profile() == {}
            can = await engine.capabilities()
            assert engine.profile() == asdict(can)

    with serving(model, n=False) as server:
        asyncio.run(main(server.url))


def test_replies_are_those_of_the_model(model: ServedModel, tmp_path: Path) -> None:
    with serving(model) as server:
        ((greedy,), drawn) = replies(server.url, tmp_path, replace(REQUEST, n=1, temperature=0.0, logprobs=3), REQUEST)
        prompts = [len(model.chat_ids(body["messages"])) for body in sent(server)]
    tokens, rows, _ = model.reply(model.chat_ids(sent(server)[0]["messages"]), 12, 0.0, 0, ())
    assert greedy.text == model.text(tokens).lstrip()
    assert greedy.prompt_tokens == prompts[0]
    assert greedy.completion_tokens == 12
    assert not greedy.finished
    assert greedy.model == "tiny"
    assert "".join(token.text for token in greedy.tokens) == greedy.text
    for token, row in zip(greedy.tokens, rows, strict=True):
        assert [value for _, value in token.alternatives] == pytest.approx(row.topk(3).values.tolist(), abs=1e-6)
    assert len({completion.text for completion in drawn}) == 3
    assert [completion.tokens for completion in drawn] == [(), (), ()]


@pytest.mark.parametrize("chat", [True, False])
def test_a_server_without_n_is_asked_for_each_reply(chat: bool, model: ServedModel, tmp_path: Path) -> None:
    with serving(model, n=False, chat=chat) as server:
        (found,) = replies(server.url, tmp_path, REQUEST)
        bodies = sent(server)
    assert sorted(body["seed"] for body in bodies) == [3, 4, 5]
    assert len({completion.text for completion in found}) == 3
    assert {completion.prompt_tokens for completion in found} == {
        sum(len(model.chat_ids(body["messages"]) if chat else model.text_ids(body["prompt"])) for body in bodies)
    }
    if not chat:
        assert bodies[0]["prompt"] == "Be brief.\n\nCount."


def test_a_greedy_request_is_sent_once_for_all_its_replies(model: ServedModel, tmp_path: Path) -> None:
    with serving(model) as server:
        (found,) = replies(server.url, tmp_path, replace(REQUEST, temperature=0.0))
        assert len(sent(server)) == 1
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_raised_attempt_draws_anew_and_the_same_one_comes_from_the_cache(model: ServedModel, tmp_path: Path) -> None:
    with serving(model) as server:
        first, again, other = replies(server.url, tmp_path, REQUEST, REQUEST, replace(REQUEST, attempt=1))
        assert len(sent(server)) == 2
    assert first == again
    assert not {reply.text for reply in first} & {reply.text for reply in other}
    replayed = replies(server.url, tmp_path, REQUEST, replace(REQUEST, attempt=1))
    assert replayed == [first, other], "no server is there any more"


def test_no_reply_holds_a_stop_text_even_where_the_server_ignores_it(model: ServedModel, tmp_path: Path) -> None:
    (whole,) = replies_of(model, tmp_path / "whole", REQUEST)
    stop = whole[0].text[4]
    (heeded,) = replies_of(model, tmp_path / "heeded", replace(REQUEST, stop=(stop,)))
    (ignored,) = replies_of(model, tmp_path / "ignored", replace(REQUEST, stop=(stop,)), stop=False)
    assert [reply.text for reply in heeded] == [reply.text for reply in ignored]
    assert heeded[0].text == whole[0].text.partition(stop)[0]
    assert heeded[0].finished
    assert ignored[0].finished


def replies_of(model: ServedModel, folder: Path, *requests: Request, **does: Any) -> list[list[Completion]]:
    with serving(model, **does) as server:
        return replies(server.url, folder, *requests)


def test_a_schema_is_obeyed(model: ServedModel, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"explanation": {"type": "string"}}}
    (found,) = replies_of(model, tmp_path, replace(REQUEST, n=1, schema=schema))
    assert found[0].text == '{"explanation": "x"}'
    with serving(model, json_schema=False) as server:
        replies(server.url, tmp_path / "without", replace(REQUEST, schema=schema))
        assert "response_format" not in sent(server)[0]


def test_a_refusal_is_the_request_s_own_error_and_is_not_asked_again(model: ServedModel, tmp_path: Path) -> None:
    def refuse(path: str, body: Json, reply: Json) -> Json:
        if "Count." in str(body):
            for choice in reply["choices"]:
                choice["message"] = {"role": "assistant", "content": None, "refusal": "No."}
        return reply

    with serving(model) as server:
        server.spoil = refuse
        with pytest.raises(EngineError, match=r"^refused: No\.$"):
            replies(server.url, tmp_path, REQUEST)
        assert len(sent(server)) == 1


def test_one_failed_draw_does_not_throw_away_the_others(model: ServedModel, tmp_path: Path) -> None:
    def spoil(path: str, body: Json, reply: Json) -> Json:
        return {} if "Count." in str(body) and body["seed"] == 4 else reply

    with serving(model, n=False) as server:
        server.spoil = spoil
        with pytest.raises(EngineError):
            replies(server.url, tmp_path, REQUEST, retries=0)
        server.spoil = None
        server.seen.clear()
        replies(server.url, tmp_path, REQUEST)
        assert [body["seed"] for body in sent(server)] == [4]


def test_a_prompt_that_does_not_fit_is_told_apart(model: ServedModel, tmp_path: Path, tokenizer_folder: str) -> None:
    long = replace(REQUEST, messages=(Message("user", "Count. " * 60),))
    with serving(model, context=300) as server:
        with pytest.raises(PromptTooLong):
            replies(server.url, tmp_path, long)
        asked = len(sent(server))
        assert asked, "without a tokenizer the server has to say it"
        with pytest.raises(PromptTooLong, match="300"):
            replies(server.url, tmp_path, long, tokenizer=tokenizer_folder)
        assert len(sent(server)) == asked, "with one it is known before"


def test_tokens_are_counted_by_the_tokenizer_or_estimated(
    tmp_path: Path, model: ServedModel, tokenizer_folder: str
) -> None:
    async def counts() -> tuple[int, int]:
        async with opened("http://127.0.0.1:9/v1", tmp_path) as engine:
            estimate = engine.count_tokens(REQUEST.messages)
        async with opened("http://127.0.0.1:9/v1", tmp_path, tokenizer=tokenizer_folder) as engine:
            return estimate, engine.count_tokens(REQUEST.messages)

    estimate, exact = asyncio.run(counts())
    assert exact == len(PromptEncoder(model.tokenizer).conversation(REQUEST.messages).ids)
    assert estimate == 5 + 2 * 4


def test_the_context_is_what_the_run_file_or_else_the_server_says(model: ServedModel, tmp_path: Path) -> None:
    async def contexts(url: str, **settings: Any) -> tuple[int | None, int | None]:
        async with opened(url, tmp_path, **settings) as engine:
            before = engine.context
            await engine.capabilities()
            return before, engine.context

    with serving(model, context=400) as server:
        assert asyncio.run(contexts(server.url)) == (None, 400)
        assert asyncio.run(contexts(server.url, context=350)) == (350, 350)
