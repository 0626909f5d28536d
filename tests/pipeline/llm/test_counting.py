"""An engine that counts what it is asked and answers nothing."""

import asyncio
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import numpy as np
import pytest

from pipeline.llm.counting_engine import BLOCK, CountingEngine, Usage
from pipeline.llm.engine import Capabilities, Message, NumberPrompt, PromptTooLong, Request
from pipeline.llm.in_process import InProcessEngine
from pipeline.llm.prompt_encoder import PromptEncoder
from pipeline.subjects.loading.model_loading import LoadedModel

MESSAGES = (Message("system", "Say what it is."), Message("user", "a red house"))


def counter(make_tiny: Callable[..., LoadedModel], context: int | None = None) -> tuple[CountingEngine, PromptEncoder]:
    tokenizer = make_tiny().tokenizer
    return CountingEngine(tokenizer, context, Capabilities(json_schema=True)), PromptEncoder(tokenizer)


def complete(engine: CountingEngine, messages: tuple[Message, ...], **fields: Any) -> Usage:
    """The usage of one request."""
    replies = asyncio.run(engine.complete(Request(messages, **{"max_tokens": 10, **fields})))
    assert [reply.text for reply in replies] == [""] * fields.get("n", 1)
    return engine.take()


def test_a_request_takes_its_prompt_once_and_the_token_limit_of_every_reply(
    make_tiny: Callable[..., LoadedModel],
) -> None:
    engine, encoder = counter(make_tiny)
    length = len(encoder.conversation(MESSAGES).ids)
    assert complete(engine, MESSAGES, n=3) == Usage(1, length, length, 30, 30)
    assert engine.most_replies == 3


def test_a_greedy_request_has_one_reply(make_tiny: Callable[..., LoadedModel]) -> None:
    engine, _ = counter(make_tiny)
    assert complete(engine, MESSAGES, n=3, temperature=0).most_tokens == 10


def test_each_passage_is_a_request_that_holds_all_of_its_text(make_tiny: Callable[..., LoadedModel]) -> None:
    engine, encoder = counter(make_tiny)
    passages = [
        NumberPrompt(MESSAGES, (" a\t", "unknown\n", " b\t", "unknown\n"), (1, 3)),
        NumberPrompt(MESSAGES, (), (0,)),
    ]
    scores = asyncio.run(engine.score(passages))
    shared = len(encoder.conversation(MESSAGES).ids)
    assert [score.prompt_tokens for score in scores] == [shared + len(" a\tunknown\n b\tunknown\n"), shared]
    assert engine.take() == Usage(2, 2 * shared + 22, shared + 22 + shared % BLOCK, 2, 1 + 2)
    assert scores[0].probabilities is not None
    assert np.allclose(scores[0].probabilities.sum(axis=1), 1)
    assert scores[0].probabilities.shape == (2, 11)


def test_what_does_not_fit_the_context_is_refused_and_not_counted(make_tiny: Callable[..., LoadedModel]) -> None:
    engine, encoder = counter(make_tiny, context=45)
    length = len(encoder.conversation(MESSAGES).ids)
    with pytest.raises(PromptTooLong, match="45"):
        asyncio.run(engine.complete(Request(MESSAGES, 46 - length)))
    [score] = asyncio.run(engine.score([NumberPrompt(MESSAGES, ("x" * 45, "y"), (1,))]))
    assert score.probabilities is None
    assert "45" in score.error
    assert engine.take() == Usage()
    assert complete(engine, MESSAGES, max_tokens=45 - length).calls == 1


def test_computed_tokens_are_those_behind_the_longest_known_beginning(make_tiny: Callable[..., LoadedModel]) -> None:
    engine, encoder = counter(make_tiny)
    generator = np.random.default_rng(0)
    pieces = ["a" * 20, "b" * 17, "c" * 40, "d" * 3]
    earlier: list[tuple[int, ...]] = []
    for _ in range(60):
        messages = (Message("user", "".join(generator.choice(pieces, size=generator.integers(1, 5)))),)
        ids = encoder.conversation(messages).ids
        known = max((_common(ids, other) // BLOCK * BLOCK for other in earlier), default=0)
        assert complete(engine, messages).computed_tokens == len(ids) - known
        earlier.append(ids)


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def test_a_request_repeated_because_its_replies_were_of_no_use_is_not_counted(
    make_tiny: Callable[..., LoadedModel],
) -> None:
    engine, _ = counter(make_tiny)
    assert complete(engine, MESSAGES, attempt=1) == Usage()


@pytest.mark.parametrize(("grow", "likely"), [(False, 2 * (6 + 1)), (True, 2 * (2 * len("\n\nabababababcdefgh") + 1))])
def test_replies_are_taken_to_be_like_the_examples(
    grow: bool, likely: int, make_tiny: Callable[..., LoadedModel]
) -> None:
    engine = CountingEngine(make_tiny().tokenizer, None, Capabilities(), grow)
    shown = [("ab", "xxxx"), ("abcd", "xxxxxxxx")]
    examples = [message for one, two in shown for message in (Message("user", one), Message("assistant", two))]
    messages = (Message("system", "Say."), *examples, Message("user", "abababababcdefgh"))
    assert complete(engine, messages, n=2, max_tokens=100).likely_tokens == likely
    assert complete(engine, messages, n=2, max_tokens=3).likely_tokens == 6


def test_stand_ins_are_given_one_after_another_and_every_request_is_counted(
    make_tiny: Callable[..., LoadedModel],
) -> None:
    engine = CountingEngine(
        make_tiny().tokenizer, None, Capabilities(), stand_in=lambda request, number: "x" * (request.n + number)
    )
    replies = [asyncio.run(engine.complete(Request(MESSAGES, 50, n=n, attempt=n))) for n in (1, 2)]
    assert [[len(reply.text) for reply in given] for given in replies] == [[1], [3, 4]]
    found = engine.take()
    assert (found.calls, found.likely_tokens, found.most_tokens) == (2, (1 + 1) + 2 * (4 + 1), 150)


def test_prompts_are_counted_as_the_engine_in_this_process_reads_them(make_tiny: Callable[..., LoadedModel]) -> None:
    model = make_tiny()
    counting = CountingEngine(model.tokenizer, None, Capabilities())
    passages = [NumberPrompt(MESSAGES, ("x\t", "\n", "yz\t", "\n"), (1, 3)), NumberPrompt(MESSAGES, (), (0,))]
    request = Request(MESSAGES, max_tokens=2)

    async def asked() -> tuple[list[int], int]:
        engine = InProcessEngine(model)
        scores, [reply] = await engine.score(passages), await engine.complete(request)
        return [score.prompt_tokens for score in scores], reply.prompt_tokens

    read, prompt = asyncio.run(asked())
    assert [score.prompt_tokens for score in asyncio.run(counting.score(passages))] == read
    assert counting.take().prompt_tokens == sum(read)
    asyncio.run(counting.complete(request))
    assert counting.take().prompt_tokens == prompt
