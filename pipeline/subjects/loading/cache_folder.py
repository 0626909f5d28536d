"""The user's cache folder: content hashes that are remembered, and folders that are made once."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage.shards import atomic_path


def cache_folder() -> Path:
    """$NEUROGLOSS_CACHE, else $XDG_CACHE_HOME/neurogloss, else ~/.cache/neurogloss. It may not exist yet."""
    if given := os.environ.get("NEUROGLOSS_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "neurogloss"


def content_hash(file: Path) -> str:
    """SHA-256 of a file in hex, remembered in the cache folder by path, size, inode and time of change.

    A file whose size or times differ from the remembered ones is read again. Where the cache folder cannot be
    written, the file is read every time.
    """
    path = file.resolve()
    stat = path.stat()
    seen = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    note = cache_folder() / "hashes" / (hashlib.sha256(str(path).encode()).hexdigest() + ".json")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads(note.read_text(encoding="utf-8"))
        if remembered["seen"] == seen and len(remembered["sha256"]) == 64:
            return str(remembered["sha256"])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with contextlib.suppress(OSError, UserError), atomic_path(note) as temporary:
        temporary.write_text(json.dumps({"path": str(path), "seen": seen, "sha256": digest}), encoding="utf-8")
    return digest


def folder_made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, made by `make(empty folder)` if it is not there yet.

    `make` fills a temporary folder beside it, which is synced and renamed: a folder with the final name is complete,
    whenever a process was killed. Processes wait for one another, so that the work is done once; what a killed process
    left behind is cleared by the next one.

    Raises:
        UserError: the cache folder cannot be written.
    """
    final = cache_folder() / name
    if final.is_dir():
        return final
    with _writable(final), final.with_name(f".{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it ends with its process, SIGKILL included
        for leftover in final.parent.glob(f".{final.name}.tmp-*"):
            shutil.rmtree(leftover)
        if not final.is_dir():
            temporary = final.with_name(f".{final.name}.tmp-{os.getpid()}")
            temporary.mkdir()
            make(temporary)
            _sync(temporary)
            temporary.rename(final)
    return final


@contextlib.contextmanager
def _writable(final: Path) -> Iterator[None]:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"the cache folder {final.parent} cannot be written ({error.strerror or error}); "
            "free space there, or set NEUROGLOSS_CACHE to a folder that can be written"
        ) from error


def _sync(folder: Path) -> None:
    """Put every file of a folder, and the folder, on the disk."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
