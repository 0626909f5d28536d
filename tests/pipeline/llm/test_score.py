"""Numbers scored behind a shared prefix, against plain reading of one whole text at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.llm import in_process
from pipeline.llm.engine import Message, NumberScores, Passage
from pipeline.llm.in_process import PREFIXES_KEPT, InProcessEngine, check_reading
from pipeline.subjects.load import LoadedModel

Make = Callable[..., LoadedModel]
SHOT = (Message("system", "Say numbers."), Message("user", "cats 3 10"), Message("assistant", "yes"))
KINDS = ["gpt2", "llama", "every layer with a window", "some layers with a window"]


def passage(explanation: str, words: list[str]) -> Passage:
    pieces = ["\nvalues:\n"]
    for word in words:
        pieces += [word + "\t", "?\n"]
    return Passage((*SHOT, Message("user", explanation)), tuple(pieces), tuple(range(2, len(pieces), 2)))


PASSAGES = [
    passage(explanation, words)
    for explanation in ("dogs", "things that are red")
    for words in ([" a"], [" the", " dog", " 10"], [" b", " c", " longer", " d", " e"])
]


def read_plainly(engine: InProcessEngine, passage: Passage) -> NumberScores:
    """Probabilities and coverage from one forward pass of the whole text before every slot, and before every "1"."""
    model, encode = engine._model, engine._encoder
    ids = list(encode.conversation(passage.messages).ids)
    pieces = encode.reply(passage.reply)
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
    for one, scores in zip(PASSAGES, engine.score(PASSAGES), strict=True):
        assert_same(scores, read_plainly(engine, one), within=2e-5)


def test_the_same_text_in_a_later_batch_has_the_same_scores(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    first = engine.score(PASSAGES)
    kept = {ids: [keys.clone() for keys, _ in prefix.layers] for ids, prefix in engine._prefixes.items()}
    engine.complete(PASSAGES[0].messages, 3, 1.0, 5, (), seed=0)
    for _ in range(2):
        for found, expected in zip(engine.score(PASSAGES), first, strict=True):
            assert_same(found, expected, within=0)
    for ids, layers in kept.items():
        for before, (keys, _) in zip(layers, engine._prefixes[ids].layers, strict=True):
            assert torch.equal(before, keys)


def test_a_batch_of_32_equals_32_singles(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny("gpt2"))
    words = [" one", " two", " and", " a", " longest"]
    passages = [passage("dogs", words[: 1 + number % 5] * (1 + number % 3)) for number in range(32)]
    for one, scores in zip(passages, engine.score(passages), strict=True):
        assert_same(scores, engine.score([one])[0], within=1e-6)


def test_the_size_of_batches_changes_nothing(make_tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = InProcessEngine(make_tiny())
    passages = [passage("dogs", [" one", " two", " three"][: 1 + number % 3]) for number in range(12)]
    whole = engine.score(passages)
    for name, limit in (("BATCH_TOKENS", 120), ("BATCH_LOGITS", 300 * 12), ("BATCH_TOKENS", 1)):
        monkeypatch.setitem(getattr(in_process, name), "cpu", limit)
        rows: list[int] = []
        handle = engine._model.get_input_embeddings().register_forward_pre_hook(
            lambda _, a, rows=rows: rows.append(len(a[0]))
        )
        for found, expected in zip(engine.score(passages), whole, strict=True):
            assert_same(found, expected, within=1e-6)
        handle.remove()
        assert len(rows) > 4


def test_few_shot_text_is_read_once_and_few_prefixes_are_kept(make_tiny: Make) -> None:
    loaded = make_tiny()
    engine = InProcessEngine(loaded)
    engine.score(PASSAGES[:1])
    read: list[int] = []
    handle = loaded.model.get_input_embeddings().register_forward_pre_hook(lambda _, args: read.append(args[0].numel()))
    engine.score(PASSAGES[:1])
    handle.remove()
    prompt = engine._encoder.conversation(PASSAGES[0].messages)
    assert sum(read) < len(prompt.own) + len("\nvalues:\n a\t?\n") + 3
    for number in range(PREFIXES_KEPT + 2):
        engine.score([Passage((Message("user", f"text {number}"), Message("user", "x")), (" a\t", "?"), (1,))])
    assert len(engine._prefixes) == PREFIXES_KEPT


def test_logits_are_computed_at_the_reads_alone(make_tiny: Make) -> None:
    loaded = make_tiny(ten=True)
    engine = InProcessEngine(loaded)
    engine.score(PASSAGES[:1])
    shapes: list[tuple[int, ...]] = []
    handle = loaded.model.get_output_embeddings().register_forward_hook(lambda _, args, out: shapes.append(out.shape))
    engine.score(PASSAGES[:3])
    handle.remove()
    assert shapes == [(1, 1, 300), (1, 1 + 3 + 5, 300)]  # the prompt's last token, then one row for each slot


def test_a_passage_that_is_too_long_fails_alone(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    long = passage("dogs", [" word"] * 200)
    results = engine.score([PASSAGES[0], long, PASSAGES[1]])
    assert results[1].probabilities is None
    assert "do not fit the model's context of 512" in results[1].error
    assert_same(results[0], engine.score([PASSAGES[0]])[0], within=1e-6)
    assert_same(results[2], engine.score([PASSAGES[1]])[0], within=1e-6)


def test_a_passage_may_fill_the_context_to_the_last_token(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny("gpt2"))
    text = passage("dogs", [" word"])
    used = len(engine._encoder.conversation(text.messages).ids) + sum(map(len, engine._encoder.reply(text.reply)))
    full = Passage(text.messages, (text.reply[0] + "x" * (512 - used), *text.reply[1:]), text.slots)
    over = Passage(text.messages, (text.reply[0] + "x" * (513 - used), *text.reply[1:]), text.slots)
    assert [bool(scores.error) for scores in engine.score([full, over])] == [False, True]
    at_the_end = Passage(full.messages, full.reply, (len(full.reply),))
    assert "513 tokens do not fit" in engine.score([at_the_end])[0].error  # "10" would end beyond


def test_a_slot_may_stand_at_the_end_of_the_text_and_a_passage_may_have_none(make_tiny: Make) -> None:
    engine = InProcessEngine(make_tiny())
    last = Passage(PASSAGES[1].messages, PASSAGES[1].reply[:-1], PASSAGES[1].slots)
    found, none = engine.score([last, passage("dogs", [])])
    assert_same(found, engine.score([PASSAGES[1]])[0], within=1e-6)
    assert none.probabilities is not None
    assert none.probabilities.shape == (0, 11)


def test_a_model_that_yields_nan_gives_an_error_and_no_numbers(make_tiny: Make) -> None:
    loaded = make_tiny("gpt2")
    engine = InProcessEngine(loaded)
    engine.score(PASSAGES[:1])
    loaded.model.transformer.ln_f.weight.fill_(float("nan"))
    assert engine.score(PASSAGES[:1]) == [NumberScores(None, None, "the model's output is not a number")]


def test_a_tokenizer_without_digits_is_refused(make_tiny: Make) -> None:
    loaded = make_tiny()
    plain = loaded.tokenizer
    loaded = LoadedModel(loaded.model, _Blind(plain), loaded.device, "tiny", "blind")
    with pytest.raises(UserError, match="tells them apart"):
        InProcessEngine(loaded).score(PASSAGES[:1])


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
