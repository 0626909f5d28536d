"""Killed at any moment, the same command carries on, and the dataset is that of an undisturbed run."""

import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.storage.tables import is_pruned
from stages import TABLES
from tests.integration.kills import kill_at_random, published
from tests.integration.reduced import all_rows, call, spawn, write_run_file


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_leave_the_dataset_of_an_undisturbed_run(kills: int, tmp_path: Path, root: Path) -> None:
    file, folder = write_run_file(tmp_path, explain_shard=1), tmp_path / "reduced"
    moments = random.Random(7)
    seen: dict[Path, tuple[int, int]] = {}
    stages: Counter[str] = Counter()
    interrupted = 0
    for _ in range(kills):
        running = kill_at_random(file, folder, moments)
        interrupted += running
        now = published(folder)
        assert all(now[path] == stamp or is_pruned(path) for path, stamp in seen.items()), (
            "a finished shard was computed again"
        )
        stages.update({path.parent.name for path in now.keys() - seen.keys()} if running else {})
        seen = now
    assert interrupted >= kills // 2
    assert len(stages) >= min(kills // 6, 3), f"the kills fell into few stages: {stages}"
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    now = published(folder)
    assert all(now[path] == stamp or is_pruned(path) for path, stamp in seen.items())
    assert {path for path in now if is_pruned(path)} == set((folder / "_partials").glob("*/part-*.parquet"))
    assert not list(folder.rglob(".*.tmp-*"))
    wanted, found = all_rows(root), all_rows(folder)
    for name in TABLES:
        assert found[name].equals(wanted[name]), name


def test_a_finished_run_says_so_at_once_and_loads_no_model(finished: Path) -> None:
    again = spawn("run", "--config", str(finished), PYTHONPROFILEIMPORTTIME="1")
    assert again.returncode == 0
    assert "Everything is done" in again.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in again.stderr.splitlines() if line.startswith("import time")}
    assert "pyarrow" in imported
    assert not {"torch", "transformers", "numba"} & imported


def test_a_setting_that_changes_rows_stops_and_one_that_does_not_carries_on(finished: Path, root: Path) -> None:
    text = finished.read_text()
    other = finished.parent / "other.toml"
    other.write_text(text.replace("bootstrap = 200", "bootstrap = 300"))
    stopped = call("run", "--config", str(other))
    assert stopped.returncode == 2
    assert "score.bootstrap: 200 -> 300" in stopped.stderr
    assert "--redo score" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    other.write_text(text.replace("[corpus]", 'device = "cpu"\n\n[corpus]'))
    assert "Everything is done" in call("run", "--config", str(other)).stdout


@pytest.mark.slow
def test_other_shards_give_the_same_rows(tmp_path: Path, root: Path) -> None:
    file = write_run_file(tmp_path, shard_sequences=48, shard_units=700, explain_shard=5)
    for part in ("1/2", "0/2"):
        for stage in ("corpus", "record", "explain", "simulate", "score"):
            call(stage, "--config", str(file), "--shard", part, "--no-wait")
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    wanted, found = all_rows(root), all_rows(tmp_path / "reduced")
    for name in TABLES:
        assert found[name].equals(wanted[name]), name
