"""A whole run in an object store, by workers that are killed and on machines that are lost: the rows of a run on a disk."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import fsspec
import pytest

from pipeline.results.run_folder import open_run
from pipeline.storage import stores
from pipeline.storage.stores import place
from stages import TABLES
from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, RECORDED, RECORDING, sections
from tests.integration.made_up_model import reply
from tests.integration.reduced import all_rows, call, command, spawn, write_run_file
from tests.object_store import new_bucket
from tests.pipeline.llm.endpoint.loopback import Loopback


@pytest.fixture
def bucket() -> Iterator[str]:
    with new_bucket() as made:
        yield made


def in_store(file: Path, bucket: str, to: Path) -> Path:
    """The same run file for a run in a store, on a machine whose disk is the folder `to`."""
    to.mkdir()
    text = file.read_text(encoding="utf-8").replace(f'folder = "{file.parent}"', f'folder = "{bucket}"')
    assert bucket in text
    moved = to / file.name
    moved.write_text(text, encoding="utf-8")
    return moved


def started(file: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command("run", "--config", str(file)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {KEY_VARIABLE: KEY},
    )


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = all_rows(one), all_rows(other)
    assert [name for name in TABLES if not ours[name].equals(theirs[name])] == []


@pytest.mark.slow
def test_a_run_in_a_store_has_the_rows_of_one_on_a_disk(tmp_path: Path, bucket: str) -> None:
    wanted = write_run_file(tmp_path / "disk")
    assert call("run", "--config", str(wanted)).returncode == 0
    first, second = (in_store(wanted, bucket, tmp_path / name) for name in ("first", "second"))
    root = place(f"{bucket}/reduced")
    workers = [started(first), started(second)]
    end = time.monotonic() + 240
    while not list(root.glob("_partials/units/*.parquet")):
        assert all(worker.poll() is None for worker in workers)
        assert time.monotonic() < end
        time.sleep(0.1)
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    assert workers[1].wait(timeout=400) == 0
    assert_same(tmp_path / "disk" / "reduced", root)

    status = call("status", "--config", str(second))
    assert status.returncode == 0, status.stderr
    found = call("query", "SELECT count(*) AS n FROM scores", "--run", str(root), "--format", "csv")
    assert found.stdout.split() == ["n", str(all_rows(root)["scores"].num_rows)], found.stderr
    report = call("report", "--run", str(root))
    assert Path(report.stdout.removeprefix("Pages: ").rpartition(" (")[0]).is_file(), report.stderr
    assert len(open_run(str(root)).scores) == all_rows(root)["scores"].num_rows

    connection = duckdb.connect()
    connection.register_filesystem(fsspec.filesystem("s3"))
    (rows,) = connection.execute(f"SELECT count(*) FROM '{root}/scores/*.parquet'").fetchone() or (0,)
    assert rows == all_rows(root)["scores"].num_rows

    damaged = root / "scores" / sorted(path.name for path in root.glob("scores/*.parquet"))[0]
    stores.put(damaged, damaged.read_bytes()[:-100], new=False)
    verified = call("verify", str(root))
    assert verified.returncode == 1
    assert damaged.name in verified.stdout
    repaired = call("repair", str(root), "--config", str(second))
    assert repaired.returncode == 0, repaired.stderr
    assert not damaged.exists()
    assert call("run", "--config", str(second)).returncode == 0
    assert call("verify", str(root)).returncode == 0
    assert_same(tmp_path / "disk" / "reduced", root)


@pytest.mark.slow
def test_a_machine_that_is_lost_takes_few_replies_with_it(tmp_path: Path, bucket: str, recorded: Path) -> None:
    """Replies that were copied are not asked for again on another machine, and the rows are those of a calm run."""
    with Loopback(reply) as server:
        calm = tmp_path / "calm"
        shutil.copytree(recorded, calm / NAME)
        text = sections(server.base_url, "loopback", "max_activation", "json", 16, shard_units=16)
        (calm / "run.toml").write_text(RECORDING.format(folder=calm) + text, encoding="utf-8")
        done = spawn("run", "--config", str(calm / "run.toml"), **{KEY_VARIABLE: KEY})
        assert done.returncode == 0, done.stderr
        needed = server.requests

        store = place(f"{bucket}/{NAME}")
        for table in RECORDED:
            for file in (recorded / table).rglob("*.parquet"):
                stores.put(store / file.relative_to(recorded).as_posix(), file, new=True)
        machines = [in_store(calm / "run.toml", bucket, tmp_path / name) for name in ("lost", "other")]
        server.latency = 0.3
        worker = started(machines[0])
        end = time.monotonic() + 120
        while not list(store.glob("_replies/*.sqlite")):
            assert worker.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        shutil.rmtree(tmp_path / "lost")
        before = server.requests - needed
        server.latency = 0.0
        done = spawn("run", "--config", str(machines[1]), **{KEY_VARIABLE: KEY})
        assert done.returncode == 0, done.stderr
        again = server.requests - 2 * needed
    assert before > 4
    assert 0 <= again < before
    assert_same(calm / NAME, store)
    assert open_run(str(store)).provenance("explanations")["profile"]["chat"]
