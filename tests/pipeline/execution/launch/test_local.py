"""Workers of one machine: one for each GPU or so many cores; they end with their launcher."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.config.launching import Launch as Settings
from pipeline.execution.launch.local import gpus_here, workers_of
from tests.integration.reduced import command, spawn, write_run_file
from tests.pipeline.toy import toy_config


def placed(gpus: list[str], here: int, cores: int = 4, workers: int | None = None) -> list[dict[str, str]]:
    settings = Settings(cores=cores, workers=workers)
    return workers_of(toy_config(Path("x")).model_copy(update={"launch": settings}), gpus, here)


def test_there_is_a_worker_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [place["CUDA_VISIBLE_DEVICES"] for place in placed(["0", "3"], 16)] == ["0", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert gpus_here() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_here() == []


def test_without_a_gpu_there_is_one_for_so_many_cores() -> None:
    assert [place["OMP_NUM_THREADS"] for place in placed([], 16, cores=4)] == ["4"] * 4
    assert [place["OMP_NUM_THREADS"] for place in placed([], 2, cores=4)] == ["2"]
    assert [place["OMP_NUM_THREADS"] for place in placed([], 4, cores=4, workers=2)] == ["2", "2"]


def launched(folder: Path) -> tuple[Path, list[str]]:
    file = write_run_file(folder, shard_sequences=16)
    file.write_text(file.read_text() + "\n[launch]\nworkers = 2\ncores = 1\n")
    return file, ["corpus", "--config", str(file), "--launch", "local"]


@pytest.mark.slow
def test_workers_finish_a_stage_and_their_logs_are_kept(tmp_path: Path) -> None:
    file, arguments = launched(tmp_path)
    done = spawn(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "reduced" / "corpus").glob("*.parquet"))
    found = spawn("logs", "corpus", "part-00000", "--config", str(file))
    assert found.returncode == 0, found.stderr
    assert "corpus part-00000:" in found.stdout
    assert "nothing to compute" in spawn(*arguments).stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_launcher(how: signal.Signals, tmp_path: Path) -> None:
    _, arguments = launched(tmp_path)
    process = subprocess.Popen(command("record", *arguments[1:]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    claims = tmp_path / "reduced" / "_claims"
    while not list(claims.glob("corpus/*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(20)
    end = time.monotonic() + 20
    while list(claims.rglob("*.json")):
        assert time.monotonic() < end, "a claim was not given back"
        time.sleep(0.1)
