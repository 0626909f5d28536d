"""Workers side by side compute each shard once, wait for one another, and take over from who died; exit codes say which it was."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.commands.run import run_pipeline
from pipeline.execution.shared_shards import Sharing
from pipeline.storage.claim_files import ClaimFolder
from pipeline.storage.claims import Claims
from pipeline.storage.tables import Tables
from tests.pipeline.execution.sharing_worker import LEASE
from tests.pipeline.toy import SQUARES, TOY, toy_config

DONE, FAILED, WAITING = 0, 1, 3


def start(folder: Path, count: int, seconds: float, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.pipeline.execution.sharing_worker", str(folder), str(count), str(seconds)]
    return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    printed, _ = process.communicate(timeout=60)
    return process.returncode, printed


def computed(folder: Path) -> Counter[str]:
    """How often each shard was begun."""
    lines = (folder / "computed.txt").read_text().splitlines()
    return Counter(line.rpartition(" ")[0] for line in lines)


def until_begun(folder: Path, shards: int) -> None:
    end = time.monotonic() + 30
    while not (folder / "computed.txt").exists() or sum(computed(folder).values()) < shards:
        assert time.monotonic() < end
        time.sleep(0.02)


def squares(folder: Path) -> list[int]:
    found: list[int] = Tables(folder / "toy").read(SQUARES)["n"].to_pylist()
    return found


def test_two_workers_compute_each_shard_once_and_both_see_the_end(tmp_path: Path) -> None:
    workers = [start(tmp_path, 12, 0.15, "--rows-may-fail") for _ in range(2)]
    assert [ended(worker)[0] for worker in workers] == [DONE, DONE]
    assert set(computed(tmp_path).values()) == {1}
    assert len(computed(tmp_path)) == 6
    assert squares(tmp_path) == [n * n for n in range(12)]
    assert not list((tmp_path / "toy" / "_claims").rglob("*.json"))


@pytest.mark.slow
def test_parts_wait_for_one_another(tmp_path: Path) -> None:
    workers = [start(tmp_path, 12, 0.1, f"{i}/2", "--rows-may-fail") for i in range(2)]
    assert [ended(worker)[0] for worker in workers] == [DONE, DONE]
    assert set(computed(tmp_path).values()) == {1}


def test_who_does_not_wait_says_that_others_have_what_is_left(tmp_path: Path) -> None:
    with Claims(ClaimFolder(tmp_path / "toy" / "_claims"), LEASE) as claims:
        claims.take("count", "part-00000")
        code, printed = ended(start(tmp_path, 4, 0.0, "--no-wait"))
    assert code == WAITING
    assert "count: 1 shards are left to other workers" in printed


def test_a_part_whose_others_never_came_does_not_wait_for_ever(tmp_path: Path) -> None:
    config = toy_config(tmp_path, count=8)
    config = config.model_copy(update={"launch": config.launch.model_copy(update={"lease": 0.5})})
    began = time.monotonic()
    assert run_pipeline(config, TOY, list(TOY), Sharing((0, 2), wait=True)) == WAITING
    assert time.monotonic() - began > 0.5


def test_rows_and_shards_that_failed_have_a_code_of_their_own(tmp_path: Path) -> None:
    def run(count: int, *, rows_may_fail: bool) -> int:
        config = toy_config(tmp_path / f"{count}", count=count)
        return run_pipeline(config, TOY, list(TOY), Sharing(wait=True), rows_may_fail=rows_may_fail)

    assert run(8, rows_may_fail=False) == FAILED
    assert run(8, rows_may_fail=True) == DONE
    assert run(20, rows_may_fail=True) == FAILED


@pytest.mark.slow
def test_a_shard_that_one_worker_saw_fail_is_not_tried_by_the_other(tmp_path: Path) -> None:
    workers = [start(tmp_path, 20, 0.4) for _ in range(2)]
    assert [ended(worker)[0] for worker in workers] == [FAILED, FAILED]
    assert computed(tmp_path)["square part-00003"] == 1
    assert ended(start(tmp_path, 20, 0.0))[0] == FAILED
    assert computed(tmp_path)["square part-00003"] == 2


def test_a_killed_worker_loses_the_shard_in_hand_alone(tmp_path: Path) -> None:
    one = start(tmp_path, 12, 30.0)
    until_begun(tmp_path, 1)
    one.kill()
    other = start(tmp_path, 12, 0.05, "--rows-may-fail")
    assert ended(other)[0] == DONE
    one.wait()
    begun = computed(tmp_path)
    assert sum(begun.values()) == len(begun) + 1
    assert squares(tmp_path) == [n * n for n in range(12)]


@pytest.mark.slow
def test_a_stalled_worker_is_followed_and_drops_its_work(tmp_path: Path) -> None:
    one = start(tmp_path, 4, 0.5, "--rows-may-fail")
    until_begun(tmp_path, 1)
    one.send_signal(signal.SIGSTOP)
    try:
        assert ended(start(tmp_path, 4, 0.0, "--rows-may-fail"))[0] == DONE
        file = next((tmp_path / "toy" / "numbers").glob("*.parquet"))
        before = file.stat()
    finally:
        one.send_signal(signal.SIGCONT)
    code, printed = ended(one)
    assert code == DONE, printed
    assert "count part-00000 was dropped" in printed
    assert file.stat().st_ino == before.st_ino


def test_a_worker_that_is_told_to_end_gives_its_shard_back_at_once(tmp_path: Path) -> None:
    one = start(tmp_path, 4, 30.0)
    until_begun(tmp_path, 1)
    one.send_signal(signal.SIGTERM)
    assert ended(one)[0] == 128 + signal.SIGTERM
    assert not list((tmp_path / "toy").rglob("*.parquet"))
    assert not list((tmp_path / "toy" / "_claims").rglob("*.json"))


def test_a_worker_that_is_told_to_finish_begins_no_other_shard(tmp_path: Path) -> None:
    one = start(tmp_path, 40, 0.4)
    until_begun(tmp_path, 2)
    one.send_signal(signal.SIGUSR1)
    assert ended(one)[0] == WAITING
    finished = len(list((tmp_path / "toy" / "numbers").glob("*.parquet")))
    assert finished == sum(computed(tmp_path).values()) < 10
    assert not list((tmp_path / "toy" / "_claims").rglob("*.json"))


def test_a_run_removes_what_killed_workers_left_anywhere_in_its_folder(tmp_path: Path) -> None:
    written = "import sys; from pathlib import Path; from pipeline.storage.temporary_names import temporary_path\n"
    written += "for name in sys.argv[1:]: path = temporary_path(Path(name)); path.parent.mkdir(parents=True, exist_ok=True); path.touch()"
    root = tmp_path / "toy"
    files = [
        "provenance.json",
        "_machines/m.json",
        "_failed/count.json",
        "_plans/count/part-0001.json",
        "_claims/count/part-00000.1.json",
    ]
    subprocess.run([sys.executable, "-c", written, *(str(root / file) for file in files)], check=True)
    assert len(list(root.rglob(".*.tmp-*"))) == len(files)
    assert run_pipeline(toy_config(tmp_path, count=4), TOY, list(TOY), Sharing(wait=True)) == DONE
    assert not list(root.rglob(".*.tmp-*"))
    subprocess.run([sys.executable, "-c", written, str(root / "squares" / "part-00000.parquet")], check=True)
    assert run_pipeline(toy_config(tmp_path, count=4), TOY, list(TOY), Sharing(wait=True)) == DONE
    assert not list(root.rglob(".*.tmp-*"))
