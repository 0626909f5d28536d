"""Workers as processes of this machine: one for each GPU, or for so many cores."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.execution.launch.frozen import Launch
from pipeline.execution.launch.watch import Codes, conclude, watch
from pipeline.execution.progress import say
from pipeline.execution.survey import Stages

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables by which libraries keep to a number of cores."""


def launch_locally(
    launch: Launch,
    config: RunConfig,
    stages: Stages,
    names: Sequence[str],
    arguments: Sequence[str],
    report: Callable[[], str],
) -> int:
    """Start the workers, show how far they are, and wait for them; gives the exit code.

    A worker that dies is not started again: the others take over its shard.

    Args:
        names: the stages that are to be finished.
        arguments: the command of a worker, without its run file.
    """
    places = workers_of(config, gpus_here(), _cores())
    say(f"{len(places)} workers; what they print is in {launch.logs}")
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for number, place in enumerate(places):
            worker = f"worker-{number}"
            processes[worker] = _start(launch, worker, arguments, place)

        def codes() -> Codes:
            return {worker: process.poll() for worker, process in processes.items()}

        return conclude(launch, config, stages, names, watch(config, stages, names, codes), report)
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


def workers_of(config: RunConfig, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """What is set in the environment of each worker: its GPU and its number of threads."""
    number = config.launch.workers or len(gpus) or max(1, cores // config.launch.cores)
    threads = dict.fromkeys(THREADS, str(max(1, min(config.launch.cores, cores // number))))
    return [threads | ({"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} if gpus else {}) for n in range(number)]


def gpus_here() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(_gpu_lines(listed.stdout)) if line]


def _gpu_lines(listed: str) -> list[str]:
    return [line for line in listed.splitlines() if line.startswith("GPU ")]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(launch: Launch, worker: str, arguments: Sequence[str], place: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log: Path = launch.logs / f"{worker}.log"
    with log.open("ab") as output:
        return subprocess.Popen(
            launch.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | launch.environment(f"local {worker}", log) | dict(place),
            start_new_session=True,  # Ctrl-C is for the launcher, which has the workers give back what they hold
        )
