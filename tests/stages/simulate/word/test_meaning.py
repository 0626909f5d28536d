"""Meaning by embedding and by list."""

import numpy as np
import pytest

from pipeline.prompts import Prompt
from pipeline.subjects.embedder import Embedder
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.english.word_classes import COMMON, whole_words
from stages.simulate.word.word_simulator import Listing, Meaning

PROMPT = Prompt("simulate/word_list.v1")
COLOURS = ["red", "Blue", "yellow", "purple"]
OTHERS = ["the", "of", "London", "walking", "committee", "qxzv", "1998"]


@pytest.mark.parametrize("with_model", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_words_that_fit_a_phrase_stand_out(embedder: Embedder, smollm2: LoadedModel, with_model: bool) -> None:
    values = Meaning(embedder, (smollm2, PROMPT) if with_model else None).values("words for colours", COLOURS + OTHERS)
    assert values[: len(COLOURS)].min() > 0.2
    assert values[len(COLOURS) :].max() < 0.1
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.slow
def test_few_of_the_common_words_fit_any_phrase(embedder: Embedder) -> None:
    common = whole_words(embedder.tokenizer)[:COMMON]
    assert np.mean(Meaning(embedder, None).values("words for colours", common) > 0) < 0.12


def test_a_list_names_what_belongs_on_it_against_other_lists(smollm2: LoadedModel) -> None:
    common = ["time", "people", "house", "water", "good", "make", "world", "still", "number", "place", "work", "year"]
    listing = Listing(smollm2, PROMPT, common)
    scores = listing.scores(listing.read("words for colours"), COLOURS + common)
    assert scores[: len(COLOURS)].min() > 1.5
    assert abs(float(scores[len(COLOURS) :].mean())) < 0.5


def test_a_phrase_is_read_by_the_model_once(
    embedder: Embedder, smollm2: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.simulate.word.word_simulator.COMMON", 100)
    meaning = Meaning(embedder, (smollm2, PROMPT))
    first = meaning.values("words for colours", COLOURS)
    monkeypatch.setattr(Listing, "read", lambda listing, phrase: pytest.fail("read again"))
    np.testing.assert_array_equal(meaning.values("words for colours", COLOURS), first)
