"""Replies sampled behind a prompt that was read once."""

from collections.abc import Callable

import pytest
import torch

from pipeline.llm.engine import EngineError, Message
from pipeline.llm.in_process import InProcessEngine
from pipeline.subjects.load import LoadedModel

Make = Callable[..., LoadedModel]
MESSAGES = [Message("system", "Be brief."), Message("user", "Say something")]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "every layer with a window", "some layers with a window"])
def test_greedy_replies_are_those_of_generate(make_tiny: Make, kind: str) -> None:
    loaded = make_tiny(kind)
    engine = InProcessEngine(loaded)
    ids = engine._encoder.conversation(MESSAGES).ids
    expected = loaded.model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=1)[
        0, len(ids) :
    ]
    replies = engine.complete(MESSAGES, 2, 0.0, 12, (), seed=0)
    assert replies[0] == replies[1]
    assert replies[0].text == loaded.tokenizer.decode(expected, skip_special_tokens=True).lstrip()
    assert replies[0].prompt_tokens == len(ids) == engine.count_tokens(MESSAGES)


def test_a_reply_depends_on_the_seed_and_its_place_alone(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    four = engine.complete(MESSAGES, 4, 1.0, 10, (), seed=3)
    assert engine.complete(MESSAGES, 2, 1.0, 10, (), seed=3) == four[:2]
    assert InProcessEngine(make_tiny()).complete(MESSAGES, 4, 1.0, 10, (), seed=3) == four
    assert len({reply.text for reply in four}) == 4
    assert engine.complete(MESSAGES, 4, 1.0, 10, (), seed=4) != four


def test_sampling_leaves_the_global_generator_alone(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    engine.complete(MESSAGES, 1, 1.0, 3, (), seed=0)
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
        replies = engine.complete(MESSAGES, 400, temperature, 1, (), seed=0)
        share = sum(reply.text == common for reply in replies) / 400
        assert abs(share - expected) < 4 * (expected * (1 - expected) / 400) ** 0.5 + 1e-9


def test_a_reply_ends_before_a_stop_text_and_says_whether_it_ended(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    whole = engine.complete(MESSAGES, 1, 0.0, 20, (), seed=0)[0]
    assert (whole.finished, whole.completion_tokens) == (False, 20)
    place, letter = next((n, text) for n, text in enumerate(whole.text) if n > 3 and text.isascii() and text.isalnum())
    cut = engine.complete(MESSAGES, 1, 0.0, 20, ("never said", letter), seed=0)[0]
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
    ended = engine.complete(MESSAGES, 1, 0.0, 20, (), seed=0)[0]
    assert ended.text == loaded.tokenizer.decode(replied[: replied.index(end)]).lstrip()
    assert (ended.completion_tokens, ended.finished) == (replied.index(end) + 1, True)


def test_a_prompt_that_leaves_no_room_for_the_reply_is_an_error(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    with pytest.raises(EngineError, match="do not fit 512 tokens"):
        engine.complete([Message("user", "x" * 510)], 1, 1.0, 3, (), seed=0)


def test_a_model_that_yields_nan_is_an_error(make_tiny: Make) -> None:
    loaded = make_tiny("gpt2")
    loaded.model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(EngineError, match="not a number"):
        InProcessEngine(loaded).complete(MESSAGES, 2, 1.0, 3, (), seed=0)
