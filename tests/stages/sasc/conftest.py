"""Where tests with a small run of SASC take place."""

from pathlib import Path

import pytest

from tests.stages.sasc.small_run import write_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, the functions and the corpus of a small run."""
    return write_place(tmp_path_factory.mktemp("small"))


@pytest.fixture
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is the working directory, from which the functions are imported."""
    monkeypatch.chdir(place)
