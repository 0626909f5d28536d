"""BERT over texts side by side gives what it gives for each text by itself, whatever the others are."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from pipeline.subjects import embedder as embedder_module
from pipeline.subjects.embedder import MAX_TOKENS, load_embedder
from pipeline.subjects.packed import can_pack, mean_states

TOKENS = 64
LENGTHS = [3, 2, 5, 5, 64, 1, 17, 3, 63, 40, 8, 8, 24, 3]


def random_bert(**settings: Any) -> BertModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertModel(BertConfig(**sizes, intermediate_size=128, **settings)).eval().requires_grad_(False)


def random_texts(lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 50, length).tolist() for length in lengths]


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_means_are_those_of_a_pass_over_each_text(activation: str) -> None:
    model, texts = random_bert(hidden_act=activation), random_texts(LENGTHS)
    found = mean_states(model, texts, TOKENS)
    for text, mean in zip(texts, found, strict=True):
        states = model(input_ids=torch.tensor([text])).last_hidden_state[0]
        torch.testing.assert_close(mean, states.mean(dim=0), rtol=1e-5, atol=1e-6)


def test_a_mean_is_the_same_to_the_last_bit_whatever_stands_beside_a_text() -> None:
    model, texts = random_bert(), random_texts(LENGTHS * 3)
    found = mean_states(model, texts, TOKENS)
    rng = np.random.default_rng(1)
    for _ in range(10):
        some = rng.permutation(len(texts))[: rng.integers(1, len(texts))].tolist()
        assert torch.equal(mean_states(model, [texts[place] for place in some], TOKENS), found[some])


def test_no_texts_have_no_means() -> None:
    assert mean_states(random_bert(), [], TOKENS).shape == (0, 64)


def test_other_models_and_devices_are_not_packed() -> None:
    assert can_pack(random_bert())
    assert not can_pack(random_bert(is_decoder=True))
    assert not can_pack(torch.nn.Linear(2, 2))
    elsewhere = type("BertModel", (), {"device": torch.device("cuda"), "config": SimpleNamespace(is_decoder=False)})
    assert not can_pack(elsewhere())


@pytest.mark.parametrize("packed", [True, False])
def test_many_texts_have_the_vectors_of_few(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = load_embedder()
    if not packed:
        monkeypatch.setattr(embedder_module, "can_pack", lambda _: False)
    words = ["the", "sea", "is", "calm", "and", "ships", "go", "by", "under", "a", "grey", "sky"]
    texts = [" ".join(words[start : start + count]) for count in range(12) for start in range(12)] + ["dog " * 300]
    many = embedder.encode(texts, many=True)
    np.testing.assert_allclose(many, embedder.encode(texts), atol=1e-6)
    assert np.array_equal(embedder.encode(texts[::-3], many=True), many[::-3])
    assert np.array_equal(embedder.encode(["dog " * MAX_TOKENS], many=True)[0], many[-1])
