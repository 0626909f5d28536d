"""The scripts for Slurm are plain, hold what the run file says, and requeue what has to run again. Slurm itself is in tests/cluster."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.launching import Launch as Settings
from pipeline.config.launching import Slurm
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import new_launch
from pipeline.execution.launch.slurm import launch_on_slurm, script_of
from tests.pipeline.toy import TOY, toy_config


def written(folder: Path, tasks: int = 4, **slurm: Any) -> str:
    config = toy_config(folder)
    config = config.model_copy(update={"launch": Settings(slurm=Slurm(**slurm))})
    return script_of(new_launch(config, "slurm"), config, "square", tasks)


def test_what_the_run_file_says_is_in_the_script(tmp_path: Path) -> None:
    text = written(
        tmp_path, 16, partition="gpu", time="02:00:00", gpus=1, cpus=8, memory="32G", account="us", at_a_time=3,
        setup=["module load cuda"], extra=["--qos=low"], shards_per_task=5,
    )  # fmt: skip
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    assert {
        "--partition=gpu", "--time=02:00:00", "--gpus-per-task=1", "--cpus-per-task=8", "--mem=32G", "--account=us",
        "--array=0-15%3", "--qos=low", "--requeue", "--signal=B:USR1@120", "--kill-on-invalid-dep=yes",
    } <= set(options)  # fmt: skip
    assert "\nmodule load cuda\n" in text
    assert re.search(r"-m pipeline run --stage square --config \S+/run\.toml --rows-may-fail --at-most 5 &", text)
    assert text.index("module load") < text.index("-m pipeline")


def test_what_it_does_not_say_is_left_to_the_site(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "--array=0-3\n" in text
    assert not [word for word in ("partition", "--time", "gpus", "--mem", "account", "--at-most") if word in text]


def test_without_slurm_a_launch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = toy_config(tmp_path)
    with pytest.raises(UserError, match="needs the command sbatch"):
        launch_on_slurm(new_launch(config, "slurm"), config, TOY, list(TOY))


WORKER = "trap '{trap}' {signal}; touch {folder}/begun; for n in $(seq 60); do sleep 0.05; done; exit {code}"


def ran(
    folder: Path, code: int, how: signal.Signals | None = None, trap: str = "", **environment: str
) -> tuple[int, bool]:
    """Run a script whose worker ends with a code, or is told something; its exit code, and whether the task was queued again."""
    folder.mkdir()
    name = how.name.removeprefix("SIG") if how else "HUP"
    worker = WORKER.format(folder=folder, code=code, trap=trap, signal=name)
    text = written(folder, seconds_to_finish=16)
    command = next(line for line in text.splitlines() if line.endswith("&") and "-m pipeline" in line)
    script = folder / "script"
    script.write_text(text.replace(command, f"bash -c {_quoted(worker if how else f'exit {code}')} &"))
    (folder / "scontrol").write_text(f"#!/bin/sh\necho $@ > {folder}/requeued\nexit 1\n")
    (folder / "scontrol").chmod(0o755)
    process = subprocess.Popen(
        [shutil.which("bash") or "bash", str(script)],
        env=os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", **environment
        },
    )  # fmt: skip
    if how:
        while not (folder / "begun").exists():
            time.sleep(0.02)
        process.send_signal(how)
    ended = process.wait(20)
    if again := (folder / "requeued").exists():
        assert (folder / "requeued").read_text() == "requeue 7_2\n"
    return ended, again


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (2, False), (3, True), (137, True)])
def test_a_task_is_queued_again_where_work_is_left_or_its_worker_was_killed(
    code: int, again: bool, tmp_path: Path
) -> None:
    assert ran(tmp_path / "a", code) == (code, again)


def test_a_worker_that_is_killed_again_and_again_is_given_up(tmp_path: Path) -> None:
    assert ran(tmp_path / "a", 137, SLURM_RESTART_COUNT="5") == (137, False)


def test_at_its_time_limit_a_worker_finishes_and_is_queued_again(tmp_path: Path) -> None:
    assert ran(tmp_path / "a", 0, signal.SIGUSR1, trap="exit 3") == (3, True)


def test_a_worker_that_does_not_finish_in_time_gives_back_its_shard_and_is_queued_again(tmp_path: Path) -> None:
    assert ran(tmp_path / "a", 0, signal.SIGUSR1, trap=":") == (143, True)


def test_a_task_that_is_cancelled_is_not_queued_again(tmp_path: Path) -> None:
    assert ran(tmp_path / "a", 0, signal.SIGTERM, trap="exit 143") == (143, False)
