"""Black boxes that are asked about the same texts embed them once."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.black_boxes.concept import concept
from pipeline.black_boxes.random_directions import random_directions
from pipeline.black_boxes.vectors import LEAST, LISTS, latest, vectors_of
from pipeline.subjects.embedder import Embedder, load_embedder


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many texts were embedded, at each call: without meaning, as a pass over thousands takes seconds."""
    calls: list[int] = []

    def encode(self: Embedder, texts: Sequence[str], many: bool = False) -> Any:
        calls.append(len(texts))
        return np.asarray([np.full(self.width, len(text)) for text in texts], np.float32)

    monkeypatch.setattr(Embedder, "encode", encode)
    latest.cache_clear()
    yield calls
    latest.cache_clear()


def long_list(number: int, length: int = LEAST) -> list[str]:
    return [f"{number} {place}" for place in range(length)]


def test_two_boxes_embed_a_long_list_once(embedded: list[int]) -> None:
    near, null = concept("the sea"), random_directions(3)
    embedded.clear()
    values = [box(long_list(0)) for box in (near, null, near)]
    assert embedded == [LEAST]
    assert np.array_equal(values[0], values[2])


def test_texts_that_are_asked_again_are_embedded_again(embedded: list[int]) -> None:
    embedder, texts = load_embedder(), long_list(0, LEAST * 2)
    for some in (texts, texts[::-1], texts[::2], texts[:5], texts[:5]):
        vectors_of(embedder, some)
    assert embedded == [LEAST * 2, LEAST * 2, LEAST, 5, 5]


def test_only_the_latest_lists_are_kept(embedded: list[int]) -> None:
    for number in [*range(LISTS), *range(LISTS), LISTS, 0]:
        vectors_of(load_embedder(), long_list(number))
    assert embedded == [LEAST] * (LISTS + 2)


def test_vectors_are_those_of_the_embedder() -> None:
    texts = ["the sea", "a red door", "the sea"]
    expected = load_embedder().encode(texts, many=True)
    assert np.array_equal(vectors_of(load_embedder(), texts), expected.astype(np.float64))
    latest.cache_clear()
    assert np.array_equal(latest(load_embedder(), tuple(texts)), expected)
    latest.cache_clear()
