"""What was launched is shown, found and ended."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.commands.launch import cancel, find_log, launch_run
from pipeline.commands.run import part_of, prepare_redo
from pipeline.commands.status import at_work, status_text
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import new_launch
from pipeline.execution.runner import run_stage
from pipeline.execution.shared_shards import open_claims
from pipeline.storage.claims import this_process
from tests.pipeline.toy import COUNT, TOY, toy_config


def test_status_says_who_is_at_work_on_what_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy_config(tmp_path)
    monkeypatch.setenv("NEUROGLOSS_JOB", "slurm 12_3")
    with open_claims(config) as claims:
        claims.take("count", "part-00001")
        text = status_text(config, TOY, ())
        assert f"{os.getpid()}" in text
        assert "slurm 12_3" in text
        assert "part-00001" in text
    assert at_work(config, TOY) == ""


def test_status_says_when_a_stage_at_work_will_end(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    run_stage(COUNT, config, TOY, show=False)
    (config.root / "numbers" / "part-00001.parquet").unlink()
    with open_claims(config) as claims:
        claims.take("count", "part-00001")
        assert "count ends at about" in at_work(config, TOY)


def test_the_log_of_a_shard_is_found_by_its_line(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    for number, shard in enumerate(["part-00001", "part-00010"]):
        log = new_launch(config, "local").logs / f"worker-{number}.log"
        log.write_text(f"loading\n12:00:00 count {shard}: 1.0 s\nafter\n")
    found = find_log(config, TOY, "count", "part-00001")
    assert "worker-0.log" in found
    assert found.endswith("12:00:00 count part-00001: 1.0 s")
    with pytest.raises(UserError, match="no log names count part-00002"):
        find_log(config, TOY, "count", "part-00002")
    with pytest.raises(UserError, match="did you mean 'count'"):
        find_log(config, TOY, "coun", "part-00002")


def test_the_error_of_a_shard_is_shown_and_the_log_of_who_is_at_work_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path, count=20)
    for name in TOY:
        run_stage(TOY[name], config, TOY, show=False)
    assert "ZeroDivisionError: thirteen" in find_log(config, TOY, "square", "part-00003")
    log = tmp_path / "own.log"
    log.write_text("at it\n")
    monkeypatch.setenv("NEUROGLOSS_LOG", str(log))
    with open_claims(config) as claims:
        claims.take("count", "part-00000")
        found = find_log(config, TOY, "count", "part-00000")
    assert "is at work on it" in found
    assert found.endswith("at it")


def test_cancel_ends_the_launcher_of_this_machine_and_names_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(tmp_path)
    assert "Nothing that was launched" in cancel(config)
    launcher = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mine = this_process()
    started = Path(f"/proc/{launcher.pid}/stat").read_text().rpartition(")")[2].split()[19]
    monkeypatch.setattr(
        "pipeline.execution.launch.frozen.this_process", lambda: replace(mine, pid=launcher.pid, started=started)
    )
    new_launch(config, "local")
    assert f"told process {launcher.pid}" in cancel(config)
    assert launcher.wait(10) == -signal.SIGTERM
    monkeypatch.setattr(
        "pipeline.execution.launch.frozen.this_process", lambda: replace(mine, machine="another", host="node7")
    )
    new_launch(config, "ray")
    assert "was launched on node7" in cancel(config)


def test_an_unknown_launcher_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--launch 'slrm'; did you mean 'slurm'"):
        launch_run(toy_config(tmp_path), TOY, list(TOY), "slrm", ["run"])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_deleted_while_others_are_at_work(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    run_stage(COUNT, config, TOY, show=False)
    with open_claims(config) as claims:
        claims.take("square", "part-00000")
        with pytest.raises(UserError, match=r"--redo while process .* is at work on square part-00000"):
            prepare_redo(config, TOY, "count")
    assert len(list((config.root / "numbers").iterdir())) == 3


def test_a_part_is_read_from_a_slurm_array(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="SLURM_ARRAY_TASK_ID"):
        part_of("auto")
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert part_of("auto") == (1, 2)
    for name, value in {"ID": "7", "COUNT": "4", "MIN": "5"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert part_of("auto") == (2, 4)
    assert part_of("3/16") == (3, 16)
    assert part_of("") == (0, 1)
