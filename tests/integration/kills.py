"""Runs that are killed at any moment, and what they leave."""

import random
import signal
import subprocess
import time
from pathlib import Path

from pipeline.storage.tables import Tables
from stages import STAGES
from tests.integration.reduced import command


def published(root: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every file of the finished shards: those whose last table is there."""
    tables = Tables(root)
    found = {}
    for stage in STAGES.values():
        for last in tables.files(stage.writes[-1]):
            for path in (tables.file(table, last.stem) for table in stage.writes):
                found[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def kill_at_random(file: Path, folder: Path, moments: random.Random) -> bool:
    """Start the run, kill it a random while after a random number of new files; whether it was still running."""
    target = len(published(folder)) + moments.randint(0, 3)
    process = subprocess.Popen(
        command("run", "--config", str(file)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and len(published(folder)) < target:
        time.sleep(0.01)
    time.sleep(moments.uniform(0.0, 0.3))
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return running
