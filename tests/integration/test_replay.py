"""A run is made again from its reply cache, with no server to ask."""

from pathlib import Path

import pytest

from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, sections, write_run
from tests.integration.made_up_model import reply
from tests.integration.reduced import all_rows, call
from tests.pipeline.llm.endpoint.loopback import Loopback

PAIRS = [
    ("token_activation", "generated"),
    ("token_space", "json"),
    ("max_activation", "json"),
    ("contrastive", "one_at_a_time"),
]


def run(file: Path, command: str, *options: str, code: int = 0) -> None:
    done = call(command, "--config", str(file), *options, **{KEY_VARIABLE: KEY})
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(("explainer", "simulator"), PAIRS)
def test_the_same_rows_come_from_the_cache(tmp_path: Path, recorded: Path, explainer: str, simulator: str) -> None:
    with Loopback(reply) as server:
        file = write_run(tmp_path, recorded, sections(server.base_url, "loopback", explainer, simulator, 3))
        run(file, "run")
    before = all_rows(tmp_path / NAME)
    run(file, "run", "--redo", "explain")
    assert all_rows(tmp_path / NAME) == before
    assert set(before["explanations"]["status"].to_pylist()) == {"ok"}


@pytest.mark.slow
def test_other_workers_read_what_one_was_told(tmp_path: Path, recorded: Path) -> None:
    with Loopback(reply) as server:
        text = sections(server.base_url, "loopback", "max_activation", "json", 6, shard_units=1)
        file = write_run(tmp_path, recorded, text)
        run(file, "run")
    before = all_rows(tmp_path / NAME)
    run(file, "explain", "--redo", "explain", "--shard", "0/2", "--no-wait", code=3)
    run(file, "explain", "--shard", "1/2")
    run(file, "simulate", "--shard", "1/2", "--no-wait", code=3)
    run(file, "simulate", "--shard", "0/2")
    run(file, "run")
    assert all_rows(tmp_path / NAME) == before
