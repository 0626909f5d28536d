"""Batches after a kill at any moment: fetched, and not paid twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.llm.endpoint.batch_run import ask, expected, files, question, texts
from tests.pipeline.llm.endpoint.model_server import Json, ModelServer


def start(server: ModelServer, folder: Path, worker: str = "0-of-1", first: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.pipeline.llm.endpoint.batch_run", server.url, str(folder), worker]
    root = Path(__file__).parents[4]
    return subprocess.Popen(
        [*command, str(first), str(first + 6)], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
    )


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "the process came to an end before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("worker", ["0-of-1", "1-of-2"], ids=["the same worker", "another number of workers"])
@pytest.mark.parametrize("moment", ["uploaded", "submitted", "followed", "done"])
def test_after_a_kill_the_same_batch_is_fetched(
    moment: str, worker: str, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the answer to the upload or the submission is under way, while it waits, and while results come."""
    service = server.batches
    service.asks_until_done = 10_000
    reached: list[str] = []
    post, get = service.post, service.get

    def hold(name: str) -> None:
        reached.append(name)
        if name == moment and reached.count(name) == 1:
            time.sleep(3)

    def slow_post(path: str, content: bytes) -> Any:
        found = post(path, content)
        hold("uploaded" if path == "/v1/files" else "submitted")
        return found

    def slow_get(path: str) -> Any:
        if "content" in path:
            hold("done")
        elif "batches/" in path:
            hold("followed")
            if moment == "done":
                service.asks_until_done = 0
        return get(path)

    monkeypatch.setattr(service, "post", slow_post)
    monkeypatch.setattr(service, "get", slow_get)
    process = start(server, tmp_path)
    kill_when(process, lambda: moment in reached)
    service.asks_until_done = 0
    assert texts(ask(server, tmp_path, range(6), worker=worker)) == expected(server, range(6))
    assert len(service.batches) == 1
    assert len(server.seen) == 6, "nothing is paid twice"


def test_a_kill_amid_the_results_loses_none(server: ModelServer, tmp_path: Path) -> None:
    """Results of questions that the next run does not ask first are kept until they are asked."""
    server.batches.asks_until_done = 10_000
    process = start(server, tmp_path)
    kill_when(process, lambda: bool(server.batches.batches) and sum(server.batches.asked.values()) > 0)
    server.batches.asks_until_done = 0
    assert texts(ask(server, tmp_path, [2])) == expected(server, [2])
    assert texts(ask(server, tmp_path, range(6))) == expected(server, range(6))
    assert len(server.seen) == 6
    assert files(tmp_path) == []


def test_a_retry_under_way_at_a_kill_is_not_paid_again(server: ModelServer, tmp_path: Path) -> None:
    service = server.batches
    failed: list[str] = []

    def fails(custom_id: str, body: Json) -> bool:
        if body["messages"] == question(3)["messages"] and not failed:
            failed.append(custom_id)
            service.asks_until_done = 10_000
            return True
        return False

    service.fails = fails
    process = start(server, tmp_path)
    kill_when(process, lambda: len(service.batches) == 2 and service.asked["batch-1"] > 0)
    service.asks_until_done = 0
    assert texts(ask(server, tmp_path, range(6))) == expected(server, range(6))
    assert len(service.batches) == 2
    assert files(tmp_path) == []
