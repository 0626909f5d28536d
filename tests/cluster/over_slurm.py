"""The reduced demo over a real Slurm: a worker, the controller and a node are killed while it runs, and a task is preempted."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.compare import differing, rows
from tests.cluster.slurm_cluster import SlurmCluster, missing
from tests.integration.kills import published
from tests.integration.reduced import command, write_run_file

SETTINGS = """
[launch]
lease = 12

[launch.slurm]
workers = 2
cpus = 1
time = "00:30:00"
extra = ["--spread-job"]
"""
SECONDS = 900
T = TypeVar("T")


def run(wanted: Path) -> dict[str, Any]:
    """Counts of what was done and found, or why it was skipped. wanted: the local run."""
    if why := missing():
        return {"skipped": why}
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        file = write_run_file(folder / "run", explain_shard=1)
        file.write_text(file.read_text(encoding="utf-8") + SETTINGS, encoding="utf-8")
        root = folder / "run" / "reduced"
        with SlurmCluster(folder / "slurm") as cluster:
            began = time.monotonic()
            call = subprocess.run(
                command("run", "--config", str(file), "--launch", "slurm"),
                env=cluster.environment, capture_output=True, text=True, check=True,
            )  # fmt: skip
            jobs = re.findall(r"job (\d+)", call.stdout)
            killed = _disturb(cluster, root)
            _wait_for_the_end(cluster, jobs)
            status = subprocess.run(
                command("status", "--config", str(file)),
                env=cluster.environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        return {
            "stages": len(jobs),
            "killed": killed,
            "rows": rows(root),
            "differing": differing(wanted, root),
            "seconds": round(time.monotonic() - began),
            "left_claims": status.count("At work"),
        }


def _disturb(cluster: SlurmCluster, root: Path) -> list[str]:
    """Kill a worker, the controller, a task and a node, each once a few more files are there."""
    killed = []
    _until_published(root, 2)
    os.kill(_seen(lambda: _a_worker(root), "a worker"), signal.SIGKILL)
    killed.append("worker")
    _until_published(root, 6)
    cluster.kill("slurmctld")
    killed.append("controller")
    time.sleep(3)
    cluster.start_controller()
    _until_published(root, 16)
    running = ("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i")
    task = _seen(lambda: next(iter(cluster.call(*running).split()), None), "a running task")
    cluster.call("scontrol", "requeue", task)  # what happens to a task that is preempted
    killed.append("preempted task")
    _until_published(root, 24)
    cluster.kill("n2")
    killed.append("node")
    return killed


def _until_published(root: Path, files: int) -> None:
    end = time.monotonic() + SECONDS
    while len(published(root)) < files:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(published(root))} of {files} files after {SECONDS} s")
        time.sleep(0.1)


def _seen(look: Callable[[], T | None], what: str) -> T:
    """What is found as soon as it is there: Slurm holds a task that is requeued back for about two minutes, and nothing else may run."""
    end = time.monotonic() + SECONDS
    while (found := look()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"{what} was not seen in {SECONDS} s")
        time.sleep(0.1)
    return found


def _a_worker(root: Path) -> int | None:
    """A process that runs a stage of the run."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "pipeline" in words and any(word.startswith(f"{root}/_launch/") for word in words):
            return int(entry.name)
    return None


def _wait_for_the_end(cluster: SlurmCluster, jobs: list[str]) -> None:
    end = time.monotonic() + SECONDS
    while left := cluster.call("squeue", "--noheader", "--format=%i %j %T %r", f"--jobs={','.join(jobs)}").strip():
        if time.monotonic() > end:
            raise TimeoutError(f"jobs are left:\n{left}\n{cluster.logs()}")
        time.sleep(1)
