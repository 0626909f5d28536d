"""A server over a made-up run, shared by the tests that only read from it."""

from collections.abc import Iterator

import pytest

from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import Served, serving


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of 40 units."""
    root = write_run(tmp_path_factory.mktemp("served") / "made-up", 40, texts=["plain {}", "</script><b>{}"])
    with serving(root) as found:
        yield found
