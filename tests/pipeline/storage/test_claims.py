"""Of several workers one at a time holds a shard, whatever becomes of them."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.storage.claim_files import ClaimFolder
from pipeline.storage.claims import Claims, this_process

LEASE = 0.6
STAGE, SHARD = "count", "part-00000"


@contextmanager
def worker(folder: Path, seconds: float = 60.0) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the claim."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.storage.claiming", str(folder), str(LEASE), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "taken\n"
        yield process
    finally:
        process.kill()
        process.wait()


def opened(folder: Path, lease: float = LEASE) -> Claims:
    return Claims(ClaimFolder(folder), lease)


def takes_within(claims: Claims, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if claims.take(STAGE, SHARD):
            return True
        time.sleep(0.05)
    return False


def test_a_claim_is_one_workers_until_it_is_released(tmp_path: Path) -> None:
    with opened(tmp_path) as one, opened(tmp_path) as other:
        claim = one.take(STAGE, SHARD)
        assert claim
        assert other.take(STAGE, SHARD) is None
        assert other.take(STAGE, "part-00001")
        one.release(claim)
        assert other.take(STAGE, SHARD)
    assert list((tmp_path / STAGE).iterdir()) == []


def test_of_many_that_try_at_once_one_gets_it(tmp_path: Path) -> None:
    for number in range(20):
        got: list[bool] = []
        start = threading.Barrier(8)

        def attempt(claims: Claims, shard: str, start: threading.Barrier, got: list[bool]) -> None:
            start.wait()
            got.append(claims.take(STAGE, shard) is not None)

        several = [opened(tmp_path) for _ in range(8)]
        threads = [threading.Thread(target=attempt, args=(claims, f"part-{number}", start, got)) for claims in several]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got.count(True) == 1
        for claims in several:
            claims.__exit__(None, None, None)


def test_who_is_alive_keeps_a_claim_for_longer_than_a_lease(tmp_path: Path) -> None:
    with worker(tmp_path), opened(tmp_path) as claims:
        assert not takes_within(claims, 2.5 * LEASE)
        owner = claims.held(STAGE)[SHARD]
        assert owner
        assert owner.beat > 2


def test_a_killed_worker_of_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    with worker(tmp_path) as process, opened(tmp_path, lease=3600) as claims:
        assert claims.take(STAGE, SHARD) is None
        process.send_signal(signal.SIGKILL)
        time.sleep(0.1)  # it is not waited for: what is left of it is no worker
        assert takes_within(claims, 2)


def test_a_stopped_worker_loses_its_claim_after_a_lease_and_notices(tmp_path: Path) -> None:
    with worker(tmp_path, seconds=4 * LEASE) as process, opened(tmp_path) as claims:
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert takes_within(claims, 10 * LEASE)
        assert time.monotonic() - began > LEASE
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=20)[0] == "lost\n"
        assert list(claims.held(STAGE)) == [SHARD]


def test_a_worker_of_another_machine_is_followed_after_a_lease(tmp_path: Path) -> None:
    elsewhere = replace(this_process(), machine="another", pid=1)
    ClaimFolder(tmp_path).create(f"{STAGE}/{SHARD}.1.json", json.dumps(asdict(elsewhere)))
    with opened(tmp_path) as claims:
        assert claims.take(STAGE, SHARD) is None
        began = time.monotonic()
        assert takes_within(claims, 10 * LEASE)
        assert time.monotonic() - began > 0.8 * LEASE


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps_takes_no_claim_away(hours: int, tmp_path: Path) -> None:
    other = replace(this_process(), since=time.time() + hours * 3600)
    ClaimFolder(tmp_path).create(f"{STAGE}/{SHARD}.1.json", json.dumps(asdict(other)))
    with opened(tmp_path, lease=3600) as claims:
        assert not takes_within(claims, 0.3)


def test_a_claim_cut_off_half_way_counts_as_one_until_a_lease_is_over(tmp_path: Path) -> None:
    (tmp_path / STAGE).mkdir()
    (tmp_path / STAGE / f"{SHARD}.1.json").write_text('{"token": "a')
    with opened(tmp_path) as claims:
        assert claims.take(STAGE, SHARD) is None
        assert claims.held(STAGE) == {SHARD: None}
        assert takes_within(claims, 10 * LEASE)


def test_a_claim_that_somebody_deleted_is_lost(tmp_path: Path) -> None:
    with opened(tmp_path) as claims:
        claim = claims.take(STAGE, SHARD)
        assert claim
        (tmp_path / claim.name).unlink()
        assert not claims.holds(claim)
