"""The first signal lets what is under way end, a second one does not, and a shell's background changes nothing of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.commands.run import WAITING, run_pipeline
from pipeline.execution.interruption import interruptible
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Context, Shard
from pipeline.execution.stopping import STOPPING
from tests.pipeline.toy import COUNT, toy_config

WORK = """
import asyncio, sys
from pipeline.execution.interruption import interruptible

async def work():
    try:
        print("at work", flush=True)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(float(sys.argv[1]))
        print("stored", flush=True)

with interruptible() as interruption:
    try:
        asyncio.run(work())
    except KeyboardInterrupt:
        sys.exit(interruption.exit_code)
"""


def ignore() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def started(seconds: float, before: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
    """A process at work, that needs so many seconds to store what it has."""
    command = [sys.executable, "-c", WORK, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=before)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize("before", [None, ignore], ids=["foreground", "background"])
def test_the_first_signal_lets_what_is_under_way_be_stored(before: Callable[[], None] | None) -> None:
    process = started(0.3, before)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "stored\n"
    assert process.returncode == 143


@pytest.mark.parametrize("before", [None, ignore], ids=["foreground", "background"])
def test_a_second_signal_ends_at_once(before: Callable[[], None] | None) -> None:
    process = started(60.0, before)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 143


def test_a_background_process_goes_on_ignoring_interrupts() -> None:
    process = started(0.0, ignore)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.kill()
    process.communicate()


class Told:
    """Sends the signal while it is deleted, where Python drops the exception of whoever handles it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_still_ends_the_run_after_the_shard_in_hand(tmp_path: Path) -> None:
    def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        Told()
        rows = COUNT.process(shard, context)
        assert isinstance(rows, Mapping)
        return rows

    stages = {"count": replace(COUNT, process=process)}
    with interruptible():
        assert run_pipeline(toy_config(tmp_path), stages, list(stages), Sharing(wait=True)) == WAITING
    assert len(list((tmp_path / "toy" / "numbers").glob("*.parquet"))) == 1
    assert not STOPPING.is_set()
