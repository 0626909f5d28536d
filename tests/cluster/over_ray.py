"""The reduced demo over a real Ray cluster of three nodes, one of which is killed while it runs."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cluster.compare import differing, rows
from tests.integration.kills import published
from tests.integration.reduced import command, write_run_file

NEEDED = ["ray", "msgpack", "protobuf", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py"]
"""ray and what it needs that is not here already; so named, they change no other package."""
NODES = 3
MEMORY = 100_000_000
SETTINGS = """
[launch]
lease = 12

[launch.ray]
workers = 2
cpus = 1
"""


def run(wanted: Path) -> dict[str, Any]:
    """Counts of what was done and found, or why it was skipped. wanted: the local run."""
    if why := missing():
        return {"skipped": why}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(NODES - 1)]
    try:
        with tempfile.TemporaryDirectory(prefix="ray-run-") as name:
            return _disturbed_run(cluster.address, nodes, Path(name), wanted)
    finally:
        cluster.shutdown()


def missing() -> str:
    """Why there can be no Ray here; empty where there can."""
    if importlib.util.find_spec("ray") is None:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *NEEDED], check=False, capture_output=True
        )
        importlib.invalidate_caches()
    if importlib.util.find_spec("ray") is None:
        return "ray cannot be installed"
    return ""


def _disturbed_run(address: str, nodes: list[Any], folder: Path, wanted: Path) -> dict[str, Any]:
    file = write_run_file(folder, explain_shard=1)
    file.write_text(file.read_text(encoding="utf-8") + SETTINGS, encoding="utf-8")
    root = folder / "reduced"
    began = time.monotonic()
    process = subprocess.Popen(
        command("run", "--config", str(file), "--launch", "ray"),
        env=os.environ | {"RAY_ADDRESS": address}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while process.poll() is None and len(published(root)) < 3:
        time.sleep(0.1)
    killed = 0
    if process.poll() is None:
        os.kill(nodes[0].all_processes["raylet"][0].process.pid, signal.SIGKILL)
        killed = 1
    printed, _ = process.communicate(timeout=900)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{printed}")
    return {
        "nodes": NODES,
        "killed": killed,
        "rows": rows(root),
        "differing": differing(wanted, root),
        "seconds": round(time.monotonic() - began),
    }
