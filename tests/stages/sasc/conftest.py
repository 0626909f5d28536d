"""What tests of SASC share: a place for small runs, and names for meanings."""

from pathlib import Path

import pytest

from pipeline.subjects.embedder import load_embedder
from stages.sasc.naming import Naming
from tests.stages.sasc.small_run import write_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, the functions and the corpus of a small run."""
    return write_place(tmp_path_factory.mktemp("small"))


@pytest.fixture
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the working directory, from which the functions are imported."""
    monkeypatch.chdir(place)


@pytest.fixture(scope="session")
def naming() -> Naming:
    """Names by the default embedder."""
    return Naming(load_embedder())
