"""A tiny served model with chat, made once, its tokenizer in a folder, and a server around it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.subjects.loading.model_loading import LoadedModel
from tests.pipeline.llm.endpoint.model_server import ModelServer, serving
from tests.pipeline.llm.endpoint.served_model import ServedModel, served


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    return served()


@pytest.fixture(scope="session")
def model(loaded: LoadedModel) -> ServedModel:
    return ServedModel(loaded)


@pytest.fixture(scope="session")
def tokenizer_folder(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    loaded.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def server(model: ServedModel) -> Iterator[ModelServer]:
    with serving(model) as running:
        yield running
