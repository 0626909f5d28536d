"""Common words are those of a tokenizer's vocabulary."""

import pytest

from pipeline.subjects.embedder import load_embedder
from stages.english.word_classes import COMMON, whole_words


class Vocabulary:
    """A tokenizer that has nothing but a vocabulary."""

    def __init__(self, *entries: str) -> None:
        self._ids = {entry: place for place, entry in enumerate(entries)}

    def get_vocab(self) -> dict[str, int]:
        return self._ids


@pytest.mark.parametrize(
    "entries",
    [
        ["[PAD]", "!", "a", "the", "##ing", "of", "Of", "café", "x9", "and"],
        ["<s>", "ing", "▁the", "▁of", "▁Of", "▁a", "tion", "▁and", "▁x9"],
        ["!", "ing", "Ġthe", "Ġof", "ĠOf", "Ġa", "tion", "Ġand"],
    ],
)
def test_common_words_are_the_first_whole_words_of_a_vocabulary(entries: list[str]) -> None:
    assert whole_words(Vocabulary(*entries)) == ["the", "of", "and"]


def test_the_embedder_knows_enough_common_words() -> None:
    words = whole_words(load_embedder().tokenizer)
    assert words[:3] == ["the", "of", "and"]
    assert len(words) > 5 * COMMON
