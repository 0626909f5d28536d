"""The names under which files and folders are written before they are whole, and what killed processes left under such names.

A name says where its writer runs and which process it is: a start of the machine and a space of process numbers in it, the process, and
a random number of its own. Two containers can share a host name and number their processes alike; they never share a place.
"""

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from functools import cache
from pathlib import Path

from pipeline.storage.stores import written_beside

UNTOUCHED = 7 * 24 * 3600
"""Seconds after which what a process elsewhere wrote, and nobody has touched since, is taken for left behind."""
_NAME = re.compile(r"\.(?P<name>.+)\.tmp-(?P<writer>.+)")
_WRITER = re.compile(r"(?P<place>[0-9a-f]{16})-(?P<pid>\d+)-[0-9a-f]{8}")


def temporary_path(path: Path) -> Path:
    """Where this process writes what is to become `path`; readers pass such names over. It is on this machine."""
    pid, path = os.getpid(), written_beside(path)
    return path.parent / f".{path.name}.tmp-{_place()}-{pid}-{_identity(pid)}"


def leftovers(folder: Path, name: str = "") -> list[Path]:
    """The temporary files and folders in a folder whose writers are no more.

    Of processes of this place the system knows whether they live. Of others nothing is known, so theirs count only once they have not been
    touched for a week.

    Args:
        name: of the file or folder that they were to become; any unless given.
    """
    any_name = written_beside(folder / "*")
    wanted = written_beside(folder / name).name if name else ""
    found = ((path, _NAME.fullmatch(path.name)) for path in any_name.parent.glob(f".{any_name.name}.tmp-*"))
    return sorted(path for path, match in found if match and wanted in ("", match["name"]) and _is_left(path, match))


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete the leftovers in a folder; see `leftovers`."""
    for path in leftovers(folder, name):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_run_leftovers(root: Path) -> None:
    """Delete the leftovers in a run's folder and in those within it: beside tables, claims, plans and notes; see `leftovers`."""
    for folder in (root, *root.glob("*/"), *root.glob("*/*/")):
        remove_leftovers(folder)


def _is_left(path: Path, match: re.Match[str]) -> bool:
    writer = _WRITER.fullmatch(match["writer"])
    if writer and writer["place"] == _place():
        return not _alive(int(writer["pid"]))
    try:
        return time.time() - path.stat().st_mtime > UNTOUCHED
    except FileNotFoundError:  # it has just got its name
        return False


@cache
def _place() -> str:
    """Where process numbers mean what they mean here: this start of the system, and its space of process numbers."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: nothing tells places apart for sure, so each process is one of its own
        start, space = socket.gethostname(), secrets.token_hex(8)
    return hashlib.sha256(f"{start} {space}".encode()).hexdigest()[:16]


@cache
def _identity(_: int) -> str:
    """A random number for each process; a forked one is another."""
    return secrets.token_hex(4)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
