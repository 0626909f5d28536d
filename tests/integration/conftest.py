"""What several tests read: one reduced demo, one recording for runs over endpoints, one real server."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.integration.endpoint_run import NAME, record
from tests.integration.llama_server import LlamaServer, llama_server
from tests.integration.reduced import call, write_run_file


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker that needs it fills, for all workers of the tests."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / ".made").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / ".made").touch()
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of a finished reduced demo; who changes the run takes `copied`."""

    def make(folder: Path) -> None:
        done = call("run", "--config", str(write_run_file(folder)))
        assert done.returncode == 0, done.stderr
        assert "Best explained" in done.stdout

    return made_once(tmp_path_factory, "finished", make) / "reduced.toml"


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The run file of a copy of the finished run."""
    shutil.copytree(finished.parent / "reduced", tmp_path / "reduced")
    return write_run_file(tmp_path)


@pytest.fixture(scope="session")
def root(finished: Path) -> Path:
    """The folder of the finished run."""
    return finished.parent / "reduced"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is recorded and not yet explained."""
    return made_once(tmp_path_factory, "recorded", record) / NAME


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaServer]:
    """A real server of the OpenAI API."""
    with llama_server() as server:
        yield server
