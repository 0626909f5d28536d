"""Disks that are full or cannot be written: a clear message, nothing half, and the same command carries on once there is room."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.disturbed_run import DisturbedRun, Place
from tests.chaos.hooks import write_little
from tests.chaos.killing import LATENCY

ROOMY = "64m"
KIB = 1024


def fill_disks(place: Place, times: int) -> None:
    """Run so often on a disk that is too small; then make room, and run again."""
    for _ in range(times):
        with place.server(latency=LATENCY) as server, _small_disk(place) as disk:
            run = DisturbedRun(place, server, disk)
            if disk.is_mount():
                _mount(disk, f"size={place.drawn.randint(8, 2400)}k")
                worker = run.start()
            else:
                worker = run.start(hook=write_little, values=(place.drawn.randint(1, 64) * KIB,))
            code = run.ended(worker, (0, 2))
            run.tally.disk_full += code == 2
            if code == 2 and not any(word in worker.printed() for word in ("space", "room", "large")):
                run.problem("the message does not speak of the disk", worker.printed())
            if disk.is_mount():
                _mount(disk, f"size={ROOMY}")
            run.check()
            run.finish()


def lock_disks(place: Place, times: int) -> None:
    """Have a disk become read-only before or while a run works on it; where nothing can be mounted, nothing is done."""
    for number in range(times):
        with place.server(latency=LATENCY) as server, _small_disk(place) as disk:
            if not disk.is_mount():
                return
            run = DisturbedRun(place, server, disk)
            worker = run.start()
            locked = False
            end = time.monotonic() + place.drawn.uniform(0.2, 0.9) * place.seconds
            while worker.code() is None and not locked:
                time.sleep(0.002)
                if time.monotonic() > end:
                    if number % 2:
                        worker.send(signal.SIGTERM)
                        run.ended(worker, (0, 143, -signal.SIGTERM))
                    locked = _mount(disk, "ro")
            if not locked or (number % 2):
                _mount(disk, "ro")
                worker = run.start()
            run.ended(worker, (0, 2))
            run.tally.ways["read-only disk"] += 1
            _mount(disk, f"rw,size={ROOMY}")
            run.check()
            run.finish()


@contextlib.contextmanager
def _small_disk(place: Place) -> Iterator[Path]:
    """A file system of its own in memory where that is allowed; else a plain folder."""
    folder = Path(tempfile.mkdtemp(prefix="disk-", dir=place.folder))
    mounted = os.geteuid() == 0 and _call("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        if mounted:
            _call("umount", "--lazy", str(folder))


def _mount(folder: Path, options: str) -> bool:
    return _call("mount", "-o", f"remount,{options}", str(folder))


def _call(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
