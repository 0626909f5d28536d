"""One reduced demo, run once for all tests that read it."""

from pathlib import Path

import pytest

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
