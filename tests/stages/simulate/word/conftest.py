"""The word simulator with its real embedder, and with the real language model."""

import pytest

from pipeline.subjects.embedder import Embedder, load_embedder
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.simulate.word.word_simulator import WordSimulator


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return load_embedder()


@pytest.fixture(scope="session")
def by_embedding(embedder: Embedder) -> WordSimulator:
    return WordSimulator(embedder, None)


@pytest.fixture(scope="session")
def by_both(embedder: Embedder, smollm2: LoadedModel) -> WordSimulator:
    return WordSimulator(embedder, smollm2)
