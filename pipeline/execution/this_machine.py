"""What a run says of the machine that it was made on: the system, the processor, GPUs, and the versions of packages."""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.storage.footers import CREATED_BY, canonical

DISTRIBUTION = CREATED_BY.split()[0]
NOT_USED = ("dev", "browser")
"""Extras that no run works with."""
GPUS = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
SECONDS = 20
"""That the answer about GPUs may take."""
Json = dict[str, Any]


@cache
def this_machine() -> Json:
    """The machine that this process runs on; asked once, without loading any of the packages."""
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory(),
        "gpus": _gpus(),
        "code": CREATED_BY,
        "packages": _packages(),
    }


def machine_name() -> str:
    """A name for its file that another machine, or this one with other packages, does not have."""
    machine = this_machine()
    host = re.sub(r"[^A-Za-z0-9-]+", "-", machine["host"])[:60] or "machine"
    return f"{host}-{hashlib.sha256(canonical(machine).encode()).hexdigest()[:8]}"


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[str]:
    """Name, memory and driver of each GPU, by the tool that comes with the driver."""
    if shutil.which(GPUS[0]) is None:
        return []
    try:
        done = subprocess.run(GPUS, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _packages() -> dict[str, str]:
    """Versions of what the project depends on, as far as it is installed."""
    try:
        needed = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for line in needed:
        name = re.match(r"[\w.-]+", line)
        if name is None or any(f'extra == "{extra}"' in line for extra in NOT_USED):
            continue
        try:
            found[name[0]] = importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))
