"""Replies sampled behind a prompt that was read once."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.llm.engine import Completion, EngineError, Message, PromptTooLong, Request
from pipeline.llm.in_process import InProcessEngine
from pipeline.llm.sampling import Reply, _Reader
from pipeline.subjects.loading.model_loading import LoadedModel

Make = Callable[..., LoadedModel]
MESSAGES = (Message("system", "Be brief."), Message("user", "Say something"))


def complete(engine: InProcessEngine, max_tokens: int, **settings: Any) -> list[Completion]:
    return asyncio.run(engine.complete(Request(MESSAGES, max_tokens, **settings)))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "every layer with a window", "some layers with a window"])
def test_greedy_replies_are_those_of_generate(make_tiny: Make, kind: str) -> None:
    loaded = make_tiny(kind)
    engine = InProcessEngine(loaded)
    ids = engine._encoder.conversation(MESSAGES).ids
    expected = loaded.model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=1)[
        0, len(ids) :
    ]
    replies = complete(engine, 12, n=2, temperature=0.0)
    assert replies[0] == replies[1]
    assert replies[0].text == loaded.tokenizer.decode(expected, skip_special_tokens=True).lstrip()
    assert replies[0].prompt_tokens == len(ids) == engine.count_tokens(MESSAGES)


def test_a_reply_depends_on_the_seed_and_its_place_alone(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    four = complete(engine, 10, n=4, seed=3)
    assert complete(engine, 10, n=2, seed=3) == four[:2]
    assert complete(InProcessEngine(make_tiny()), 10, n=4, seed=3) == four
    assert len({reply.text for reply in four}) == 4
    assert complete(engine, 10, n=4, seed=4) != four
    assert complete(engine, 10, n=4, seed=3, attempt=1) != four


def test_sampling_leaves_the_global_generator_alone(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    complete(engine, 3)
    assert torch.equal(torch.rand(1), expected)


def test_samples_follow_the_models_distribution(make_tiny: Make) -> None:
    loaded = make_tiny()
    engine = InProcessEngine(loaded)
    ids = engine._encoder.conversation(MESSAGES).ids
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids])).logits[0, -1]
    letters = [loaded.tokenizer.decode([token]).lstrip() for token in range(300)]
    for temperature in (1.0, 0.3):
        chances = (logits / temperature).softmax(dim=0)
        common = letters[int(chances.argmax())]
        expected = sum(float(chance) for chance, letter in zip(chances, letters, strict=True) if letter == common)
        replies = complete(engine, 1, n=400, temperature=temperature)
        share = sum(reply.text == common for reply in replies) / 400
        assert abs(share - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5 + 1e-9


def test_a_reply_ends_before_a_stop_text_and_says_whether_it_ended(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    whole = complete(engine, 20, temperature=0.0)[0]
    assert (whole.finished, whole.completion_tokens) == (False, 20)
    place, letter = next((n, text) for n, text in enumerate(whole.text) if n > 3 and text.isascii() and text.isalnum())
    cut = complete(engine, 20, temperature=0.0, stop=("never said", letter))[0]
    assert cut.finished
    assert cut.text == whole.text[: whole.text.index(letter)]
    assert cut.completion_tokens < 20 or place == len(whole.text) - 1


def test_a_reply_ends_with_the_end_token_and_does_not_show_it(make_tiny: Make) -> None:
    loaded = make_tiny("gpt2")
    engine = InProcessEngine(loaded)
    ids = torch.tensor([engine._encoder.conversation(MESSAGES).ids])
    replied = loaded.model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=1)[0, ids.shape[1] :].tolist()
    end = next(token for place, token in enumerate(replied) if place > 1 and token not in replied[:place])
    loaded.model.generation_config.eos_token_id = [1, end]
    ended = complete(engine, 20, temperature=0.0)[0]
    assert ended.text == loaded.tokenizer.decode(replied[: replied.index(end)]).lstrip()
    assert (ended.completion_tokens, ended.finished) == (replied.index(end) + 1, True)


def test_a_prompt_that_leaves_no_room_for_the_reply_is_an_error(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    with pytest.raises(PromptTooLong, match="513 tokens do not fit the model's context of 512"):
        asyncio.run(engine.complete(Request((Message("user", "x" * 510),), 3)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_yields_nan_is_an_error(make_tiny: Make, temperature: float) -> None:
    loaded = make_tiny("gpt2")
    loaded.model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(EngineError, match="not a number"):
        complete(InProcessEngine(loaded), 3, temperature=temperature)


def test_each_token_comes_with_the_likeliest_tokens_in_its_place(make_tiny: Make) -> None:
    loaded = make_tiny(ten=True)
    engine = InProcessEngine(loaded)
    ids = list(engine._encoder.conversation(MESSAGES).ids)
    reply = complete(engine, 8, temperature=0.0, logprobs=5)[0]
    assert len(reply.tokens) == 8
    for token in reply.tokens:
        with torch.inference_mode():
            likeliest = loaded.model(torch.tensor([ids])).logits[0, -1].log_softmax(dim=0).topk(5)
        assert [value for _, value in token.alternatives] == pytest.approx(likeliest.values.tolist(), abs=1e-4)
        before = loaded.tokenizer.decode(ids[-1:])
        shown = [loaded.tokenizer.decode([ids[-1], other])[len(before) :] for other in likeliest.indices]
        assert [text for text, _ in token.alternatives][1:] == shown[1:]
        ids.append(int(likeliest.indices[0]))


def test_joined_tokens_are_the_text_and_a_token_drawn_is_among_its_alternatives(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    for reply in complete(engine, 12, n=40, logprobs=2, stop=("a", "e")):
        assert "".join(token.text for token in reply.tokens) == reply.text
        for token in reply.tokens:
            values = [value for _, value in token.alternatives]
            assert len(values) in (2, 3)
            assert values == sorted(values, reverse=True)
    assert complete(engine, 3)[0].tokens == ()
    assert max(len(t.alternatives) for t in complete(engine, 3, temperature=0.0, logprobs=500)[0].tokens) == 20


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        (" 3\u00e9, 10<end>", (), ["", "3", "", "\u00e9", ",", " ", "10"]),
        ("3\ufffd\ufffd", (), ["3", "", "", "", "", "", "\ufffd\ufffd"]),
        ("\n\n7 10", (" ",), ["", "", "7"]),
        ("a 10 0", (" 10",), ["a"]),
    ],
)
def test_a_token_that_completes_a_character_has_it(
    make_tiny: Make, text: str, stop: tuple[str, ...], expected: list[str]
) -> None:
    loaded = make_tiny(ten=True)
    reader, reply = _Reader(loaded.model, loaded.tokenizer, Request((), 9, stop=stop, logprobs=1)), Reply()
    for token in loaded.tokenizer(text.replace("<end>", "<|end|>"), add_special_tokens=False).input_ids:
        if not reply.finished:
            reader.add(reply, torch.zeros(300), token)
    assert [token.text for token in reply.tokens()] == expected
    assert reply.text == "".join(expected)


def test_replies_asked_for_side_by_side_are_those_of_single_requests(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    requests = [Request((*MESSAGES, Message("assistant", "x" * n), MESSAGES[1]), 6, n=2, seed=n) for n in range(5)]
    alone = [asyncio.run(engine.complete(request)) for request in requests]

    async def together() -> list[list[Completion]]:
        return await asyncio.gather(*(engine.complete(request) for request in requests))

    assert asyncio.run(together()) == alone


def test_sampling_can_be_interrupted_and_the_engine_goes_on(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())

    async def interrupted() -> bool:
        task = asyncio.ensure_future(engine.complete(Request(MESSAGES, 400)))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(interrupted())
    assert complete(engine, 3) == complete(InProcessEngine(make_tiny()), 3)
