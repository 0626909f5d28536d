"""Numbers scored behind a shared prefix, against plain reading of one whole text at a time."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.llm import in_process
from pipeline.llm.engine import Message, NumberPrompt, NumberScores, Request
from pipeline.llm.in_process import ALONE, PREFIXES_KEPT, InProcessEngine
from pipeline.llm.prefix_cache import check_reading
from pipeline.subjects.loading.model_loading import LoadedModel
from tests.pipeline.llm.conftest import CHAT

Make = Callable[..., LoadedModel]
SHOT = (Message("system", "Say numbers."), Message("user", "cats 3 10"), Message("assistant", "yes"))
KINDS = ["gpt2", "llama", "every layer with a window", "some layers with a window"]


def passage(explanation: str, words: list[str]) -> NumberPrompt:
    pieces = ["\nvalues:\n"]
    for word in words:
        pieces += [word + "\t", "?\n"]
    return NumberPrompt((*SHOT, Message("user", explanation)), tuple(pieces), tuple(range(2, len(pieces), 2)))


PASSAGES = [
    passage(explanation, words)
    for explanation in ("dogs", "things that are red")
    for words in ([" a"], [" the", " dog", " 10"], [" b", " c", " longer", " d", " e"])
]


def score(engine: InProcessEngine, passages: Sequence[NumberPrompt]) -> list[NumberScores]:
    return asyncio.run(engine.score(passages))


def read_plainly(engine: InProcessEngine, passage: NumberPrompt) -> NumberScores:
    """Probabilities and coverage from one forward pass of the whole text before every slot, and before every "1"."""
    model, encode = engine._model, engine._encoder
    ids = list(encode.conversation(passage.messages).ids)
    pieces = encode.reply(passage.reply) if passage.reply else []
    digits = [encode.encode(str(number)) for number in range(11)]

    def after(text: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(torch.tensor([text])).logits[0, -1]
        return logits.double().softmax(dim=0)

    rows = []
    for slot in passage.slots:
        before = ids + [token for piece in pieces[:slot] for token in piece]
        found = after(before)
        row = [float(found[number[0]]) for number in digits]
        if len(digits[10]) == 2:
            zero = float(after([*before, digits[1][0]])[digits[10][1]])
            row[10], row[1] = row[1] * zero, row[1] * (1 - zero)
        rows.append(row)
    chances = np.array(rows, dtype=np.float32)
    return NumberScores(chances / chances.sum(axis=1, keepdims=True), chances.sum(axis=1))


def assert_same(found: NumberScores, expected: NumberScores, within: float) -> None:
    for one, other in ((found.probabilities, expected.probabilities), (found.coverage, expected.coverage)):
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(one, other, rtol=0, atol=within)


@pytest.mark.parametrize("ten", [True, False], ids=["10 in one token", "10 in two tokens"])
@pytest.mark.parametrize("kind", KINDS)
def test_batched_and_cached_equals_one_plain_pass_each(make_tiny: Make, kind: str, ten: bool) -> None:
    engine = InProcessEngine(make_tiny(kind, ten))
    assert len(engine._encoder.encode("10")) == (1 if ten else 2)
    for one, scores in zip(PASSAGES, score(engine, PASSAGES), strict=True):
        assert_same(scores, read_plainly(engine, one), within=2e-5)


def test_the_same_text_in_a_later_batch_has_the_same_scores(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    first = score(engine, PASSAGES)
    prefix = engine._shared(engine._encoder.conversation(PASSAGES[0].messages).shared)
    kept = [keys.clone() for keys, _ in prefix.layers]
    asyncio.run(engine.complete(Request(PASSAGES[0].messages, 5, n=3)))
    for _ in range(2):
        for found, expected in zip(score(engine, PASSAGES), first, strict=True):
            assert_same(found, expected, within=0)
    for before, (keys, _) in zip(kept, prefix.layers, strict=True):
        assert torch.equal(before, keys)


def test_a_batch_of_32_equals_32_singles(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny("gpt2"))
    words = [" one", " two", " and", " a", " longest"]
    passages = [
        passage(explanation, words[: 1 + number % 5] * (1 + number % 3))
        for explanation in ("dogs", "cats and more")
        for number in range(16)
    ]
    for one, scores in zip(passages, score(engine, passages), strict=True):
        assert_same(scores, score(engine, [one])[0], within=1e-6)


def test_texts_that_differ_in_their_last_message_are_batched_behind_what_they_share(make_tiny: Make) -> None:
    loaded = make_tiny()
    engine = InProcessEngine(loaded)
    asked = [NumberPrompt((*SHOT, Message("user", f"the list: {'word ' * n}")), (), (0,)) for n in range(1, 12)]
    score(engine, asked[:1])
    read: list[torch.Size] = []
    handle = loaded.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0].shape))
    together = score(engine, asked)
    handle.remove()
    assert [rows for rows, _ in read] == [1, 11]
    for one, scores in zip(asked, together, strict=True):
        assert_same(scores, read_plainly(engine, one), within=2e-5)
        assert scores.prompt_tokens == engine.count_tokens(one.messages)


def test_what_waits_beside_a_call_does_not_change_a_bit_of_its_numbers(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    calls = [
        [passage(text, [" a", " b c"][: 1 + n % 2] * (1 + n)) for n in range(3 + ALONE)] for text in ("x", "yy", "z")
    ]
    calls.append(PASSAGES)
    alone = [score(engine, call) for call in calls]

    async def together() -> list[list[NumberScores]]:
        return await asyncio.gather(*(engine.score(call) for call in reversed(calls)))

    for found, expected in zip(reversed(asyncio.run(together())), alone, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, within=0)


def test_scoring_can_be_interrupted_between_batches(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(in_process.BATCH_TOKENS, "cpu", 1)
    engine = InProcessEngine(make_tiny())
    rows: list[int] = []
    engine._model.get_input_embeddings().register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))

    async def interrupted() -> bool:
        task = asyncio.ensure_future(engine.score(PASSAGES * 4))
        while len(rows) < 12:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(interrupted())
    assert len(rows) < 16
    assert_same(score(engine, PASSAGES[:1])[0], read_plainly(engine, PASSAGES[0]), within=2e-5)


def test_the_size_of_batches_changes_nothing(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = InProcessEngine(make_tiny())
    passages = [passage("dogs", [" one", " two", " three"][: 1 + number % 3]) for number in range(12)]
    whole = score(engine, passages)
    for name, limit in (("BATCH_TOKENS", 120), ("BATCH_LOGITS", 300 * 12), ("BATCH_TOKENS", 1)):
        monkeypatch.setitem(getattr(in_process, name), "cpu", limit)
        rows: list[int] = []
        handle = engine._model.get_input_embeddings().register_forward_pre_hook(
            lambda _, a, rows=rows: rows.append(len(a[0]))
        )
        for found, expected in zip(score(engine, passages), whole, strict=True):
            assert_same(found, expected, within=1e-6)
        handle.remove()
        assert len(rows) > 4


def test_few_shot_text_is_read_once_and_few_prefixes_are_kept(make_tiny: Make) -> None:
    loaded = make_tiny()
    engine = InProcessEngine(loaded)
    score(engine, PASSAGES[:1])
    read: list[int] = []
    handle = loaded.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))
    score(engine, PASSAGES[:1])
    handle.remove()
    prompt = engine._encoder.conversation(PASSAGES[0].messages)
    assert sum(read) < len(prompt.own) + len("\nvalues:\n a\t?\n") + 3
    for number in range(PREFIXES_KEPT + 2):
        score(engine, [NumberPrompt((Message("user", f"text {number}"), Message("user", "x")), (" a\t", "?"), (1,))])
    assert engine._shared.cache_info().currsize == PREFIXES_KEPT


def test_logits_are_computed_at_the_reads_alone(make_tiny: Make) -> None:
    loaded = make_tiny(ten=True)
    engine = InProcessEngine(loaded)
    score(engine, PASSAGES[:1])
    shapes: list[tuple[int, ...]] = []
    handle = loaded.model.get_output_embeddings().register_forward_hook(lambda _, args, out: shapes.append(out.shape))
    score(engine, PASSAGES[:3])
    handle.remove()
    assert shapes == [(1, 1, 300), (1, 1 + 3 + 5, 300)]  # the prompt's last token, then one row for each slot


def test_a_passage_that_is_too_long_fails_alone(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    long = passage("dogs", [" word"] * 200)
    results = score(engine, [PASSAGES[0], long, PASSAGES[1]])
    assert results[1].probabilities is None
    assert "do not fit the model's context of 512" in results[1].error
    assert_same(results[0], score(engine, [PASSAGES[0]])[0], within=1e-6)
    assert_same(results[2], score(engine, [PASSAGES[1]])[0], within=1e-6)


def test_a_passage_may_fill_the_context_to_the_last_token(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny("gpt2"))
    text = passage("dogs", [" word"])
    used = len(engine._encoder.conversation(text.messages).ids) + sum(map(len, engine._encoder.reply(text.reply)))
    full = NumberPrompt(text.messages, (text.reply[0] + "x" * (512 - used), *text.reply[1:]), text.slots)
    over = NumberPrompt(text.messages, (text.reply[0] + "x" * (513 - used), *text.reply[1:]), text.slots)
    assert [bool(scores.error) for scores in score(engine, [full, over])] == [False, True]
    at_the_end = NumberPrompt(full.messages, full.reply, (len(full.reply),))
    assert "513 tokens do not fit" in score(engine, [at_the_end])[0].error  # "10" would end beyond


def test_a_slot_may_stand_at_the_end_of_the_text_and_a_passage_may_have_none(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    last = NumberPrompt(PASSAGES[1].messages, PASSAGES[1].reply[:-1], PASSAGES[1].slots)
    found, none = score(engine, [last, passage("dogs", [])])
    assert_same(found, score(engine, [PASSAGES[1]])[0], within=1e-6)
    assert none.probabilities is not None
    assert none.probabilities.shape == (0, 11)


@pytest.mark.parametrize("template", [None, CHAT], ids=["plain", "chat"])
def test_a_slot_may_be_the_start_of_the_reply_or_its_end(make_tiny: Make, template: str | None) -> None:
    engine = InProcessEngine(make_tiny(template=template))
    messages = PASSAGES[0].messages
    texts = [
        NumberPrompt(messages, (), (0,)),
        NumberPrompt(messages, ("a list: ", "3"), (0, 1, 2)),
        NumberPrompt((Message("user", "How often?"),), (), (0,)),
        NumberPrompt((Message("user", "x"),), (" 1",), (1,)),
    ]
    for one, scores in zip(texts, score(engine, texts), strict=True):
        assert_same(scores, read_plainly(engine, one), within=2e-5)


def test_a_model_that_yields_nan_gives_an_error_and_no_numbers(make_tiny: Make) -> None:
    loaded = make_tiny("gpt2")
    engine = InProcessEngine(loaded)
    score(engine, PASSAGES[:1])
    loaded.model.transformer.ln_f.weight.fill_(float("nan"))
    found = score(engine, PASSAGES[:1])[0]
    assert (found.probabilities, found.coverage, found.error) == (None, None, "the model's output is not a number")


def test_a_tokenizer_without_digits_is_refused(make_tiny: Make) -> None:
    loaded = make_tiny()
    plain = loaded.tokenizer
    loaded = LoadedModel(loaded.model, _Blind(plain), loaded.device, "tiny", "blind")
    with pytest.raises(UserError, match="tells them apart"):
        score(InProcessEngine(loaded), PASSAGES[:1])


class _Blind:
    """A tokenizer that reads every digit as 7."""

    def __init__(self, tokenizer: object) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: object) -> object:
        return self._tokenizer("".join("7" if letter.isdigit() else letter for letter in text), **options)  # type: ignore


def test_a_model_that_cannot_be_read_behind_a_prefix_is_refused() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3))
    with pytest.raises(UserError, match="BloomForCausalLM cannot be read behind a shared prefix"):
        check_reading(model.eval())


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_can_be_read_so_pass_the_check(make_tiny: Make, kind: str) -> None:
    check_reading(make_tiny(kind).model)
