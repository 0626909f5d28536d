"""Workers as tasks of a Ray cluster, whose nodes share the run's folder and have this program in the same place."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import Launch
from pipeline.execution.launch.watch import Codes, conclude, watch
from pipeline.execution.progress import say
from pipeline.execution.survey import Stages
from pipeline.storage.stores import is_remote

OF_STORES = ("AWS_", "GOOGLE_", "FSSPEC_")
"""How the names of environment variables begin by which stores are reached."""
SECONDS_TO_CONNECT = 10.0
LOST = 1
"""What counts as the exit code of a worker whose nodes died too often."""


def launch_on_ray(
    launch: Launch,
    config: RunConfig,
    stages: Stages,
    names: Sequence[str],
    arguments: Sequence[str],
    report: Callable[[], str],
) -> int:
    """Start the workers as tasks, show how far they are, and wait for them; gives the exit code.

    Ray starts a worker again, on another node, where its node died.

    Args:
        names: the stages that are to be finished.
        arguments: the command of a worker, without its run file.

    Raises:
        UserError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _connected(config)
    settings = config.launch.ray
    task = ray.remote(
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
        resources=settings.resources or None,
        max_retries=settings.retries,
    )(_worker())
    say(f"{settings.workers} workers on {len(ray.nodes())} nodes; what they print is in {launch.logs}")
    tasks = {}
    for number in range(settings.workers):
        log = launch.logs / f"worker-{number}.log"
        environment = launch.environment(f"ray worker-{number}", log) | keys_of(config)
        tasks[f"worker-{number}"] = task.remote(launch.command(*arguments), environment, str(log))

    def codes() -> Codes:
        ended = set(ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=0)[0])
        return {worker: _code(ray, reference) if reference in ended else None for worker, reference in tasks.items()}

    try:
        return conclude(launch, config, stages, names, watch(config, stages, names, codes), report)
    finally:
        ray.shutdown()  # which ends the tasks that are left


def keys_of(config: RunConfig) -> dict[str, str]:
    """The environment variables that hold keys of endpoints and of the store that a run's folder is in: nodes have an environment of
    their own, and no file may hold them."""
    models = list(config.language_models())
    headers = [value for model in models for value in model.headers.values() if value.startswith("env:")]
    names = {*(model.key_variable for model in models), *(value.removeprefix("env:") for value in headers)}
    if is_remote(config.root):
        names |= {name for name in os.environ if name.startswith(OF_STORES)}
    return {name: os.environ[name] for name in names if name and name in os.environ}


def _connected(config: RunConfig) -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("--launch ray needs ray; install it with: pip install 'neurogloss[ray]'") from None
    address = os.environ.get("RAY_ADDRESS") or config.launch.ray.address
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host and port.isdigit():
            socket.create_connection(
                (host, int(port)), SECONDS_TO_CONNECT
            ).close()  # Ray would try for minutes, and then abort
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at {address!r} ({error}); begin one with: ray start --head, or name it in RAY_ADDRESS"
        ) from None
    return ray


def _code(ray: Any, reference: Any) -> int:
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError:
        return LOST


def _worker() -> Callable[[list[str], dict[str, str], str], int]:
    """What a node does. It is made here so that nodes need not import this module."""

    def work(command: list[str], environment: dict[str, str], log: str) -> int:
        import os
        import subprocess

        with open(log, "ab") as output:
            return subprocess.run(
                command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT, check=False
            ).returncode

    return work
