"""What several tests read: one reduced demo, one recording for runs over endpoints, one real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.endpoint_run import record
from tests.integration.llama_server import LlamaServer, llama_server
from tests.integration.reduced import call, write_run_file


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run file of a finished reduced demo."""
    file = write_run_file(tmp_path_factory.mktemp("finished"))
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    assert "Best explained" in done.stdout
    return file


@pytest.fixture(scope="session")
def root(finished: Path) -> Path:
    """The folder of the finished run."""
    return finished.parent / "reduced"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is recorded and not yet explained."""
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaServer]:
    """A real server of the OpenAI API."""
    with llama_server() as server:
        yield server
