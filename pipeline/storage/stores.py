"""Where a run's folder lies: on a file system of this machine, or in an object store that fsspec can reach (`s3://`, `gs://`, ...).

A place in a store is a universal_pathlib path. It has the methods of a pathlib path, so nearly all code takes both alike. What differs
is here: how a file gets its name there (a put that succeeds only where nothing has the name, instead of a link), how Parquet is read
there, and what tells one content of a file from another.
"""

import hashlib
import re
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq

T = TypeVar("T")

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""The extra of this package that reaches a kind of store."""
TRIES, PAUSE = 5, 0.2
"""Puts of one name at the same moment, and the seconds between them."""
STAMPS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime", "created")
"""By which stores tell one content of a file from another, the best first."""
UNCACHED = {"use_listings_cache": False}
"""Others change the store meanwhile, so no listing may be remembered."""


class StoreError(UserError, OSError):
    """A store refuses something, or does not answer."""


def place(text: str | Path) -> Path:
    """The folder or file of that name: a local path, or one in a store where the name is a URL.

    Raises:
        UserError: the store is of a kind that cannot be reached, or it does not answer.
    """
    if "://" not in str(text):
        return Path(text).expanduser()
    protocol, _, rest = str(text).partition("://")
    if "@" in rest.partition("/")[0]:
        raise UserError(
            "an address with a password or key in it, which is not shown; put that into the environment (docs/cluster.md)"
        )
    try:
        from upath import UPath

        found = UPath(str(text), **UNCACHED)
        if protocol in EXTRAS:
            _reach(found.fs, found.path.partition("/")[0])
    except (ImportError, ValueError) as error:
        extra = EXTRAS.get(protocol)
        told = f'install it with: pip install "neurogloss[{extra}]"' if extra else "install fsspec's package for it"
        raise UserError(f"{text}: {error}; {told}") from None
    return cast(Path, found)  # it has a path's methods, as far as they are used here


@cache
def _reach(store: Any, bucket: str) -> None:
    """Ask once whether a store answers, so that a wrong key or address is told as such."""
    try:
        store.ls(bucket, detail=False)
    except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
        raise StoreError(
            f"{store.unstrip_protocol(bucket)} cannot be listed ({_told(error)}). Check its name, the address of the store "
            "and the credentials in the environment (docs/cluster.md)"
        ) from None


def is_remote(path: Path) -> bool:
    """Whether a path is in a store, not on a file system of this machine."""
    return not isinstance(path, Path)


def scratch(path: Path) -> Path:
    """A local folder for what belongs to a run's folder and has to lie on a disk, such as databases and logs.

    That is the folder itself; for one in a store, a folder in `outputs/_stores` where the command was started.
    """
    if not is_remote(path):
        return path
    name = re.sub(r"[^A-Za-z0-9]+", "-", str(path)).strip("-")[-80:]
    return Path("outputs", "_stores", f"{name}-{_digest(path)}")


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]


def written_beside(path: Path) -> Path:
    """The local file in whose folder a file is written before it gets its name: itself, or for a store one in the folder for such."""
    if not is_remote(path):
        return path
    return Path(tempfile.gettempdir(), f"neurogloss-{_digest(path.parent)}-{path.name}")


def put(path: Path, content: Path | bytes, *, new: bool) -> None:
    """Write a local file, or bytes, into a store, whole or not at all.

    Args:
        new: only where nothing has that name.

    Raises:
        FileExistsError: something has the name.
        StoreError: the store refuses it, or does not answer.
    """
    store, name, mode = cast(Any, path).fs, cast(Any, path).path, "create" if new else "overwrite"
    for left in reversed(range(TRIES)):
        try:
            if isinstance(content, bytes):
                store.pipe_file(name, content, mode=mode)
            else:
                store.put_file(str(content), name, mode=mode)
            return
        except FileExistsError:
            raise
        except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
            if not left or "Conflict" not in str(error):  # else another writes the same name at this moment
                raise StoreError(f"cannot write {path} ({_told(error)}); see to it, then run again") from None
        time.sleep(PAUSE)


def ask(call: Callable[..., T], *arguments: Any) -> T:
    """What a store says. Raises StoreError: it refuses, or does not answer; FileNotFoundError."""
    try:
        return call(*arguments)
    except FileNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
        raise StoreError(f"a store does not do what is asked ({_told(error)}); see to it, then run again") from None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def state(path: Path) -> Hashable:
    """What tells one content of a file from another, without reading it. Raises FileNotFoundError: there is none."""
    if is_remote(path):
        return _stamp(cast(Any, path).fs.info(cast(Any, path).path))
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def states(paths: Sequence[Path]) -> list[Hashable]:
    """The same for several files, None for one that is not there; those in one folder of a store take one request."""
    listed: dict[Path, Hashable] = {}
    for folder in {path.parent for path in paths if is_remote(path)}:
        listed |= _listed(folder)
    return [listed.get(path) if is_remote(path) else _state_if_there(path) for path in paths]


def _listed(folder: Path) -> dict[Path, Hashable]:
    """The files in a folder of a store with their states, by one request."""
    try:
        entries = ask(cast(Any, folder).fs.ls, cast(Any, folder).path, True)
    except FileNotFoundError:
        return {}
    return {folder / one["name"].rpartition("/")[2]: _stamp(one) for one in entries if one["type"] == "file"}


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder whose names fit a pattern such as *.json, in order; none where there is no such folder."""
    found = _listed(folder) if is_remote(folder) else folder.glob(pattern)
    return sorted(path for path in found if fnmatchcase(path.name, pattern))


def _state_if_there(path: Path) -> Hashable:
    try:
        return state(path)
    except FileNotFoundError:
        return None


def _stamp(info: Mapping[str, Any]) -> Hashable:
    """Size and the first of STAMPS that the store has."""
    return next(((name, str(info[name])) for name in STAMPS if info.get(name)), None), info["size"]


def arrow_path(path: Path) -> str:
    """A file's name for pyarrow, on `arrow_system` of it."""
    return str(cast(Any, path).path) if is_remote(path) else str(path)


def arrow_system(path: Path) -> "pafs.FileSystem":
    """The file system of a path for pyarrow."""
    import pyarrow.fs as pafs

    return _arrow_store(cast(Any, path).fs) if is_remote(path) else pafs.LocalFileSystem()


@cache
def _arrow_store(store: Any) -> "pafs.FileSystem":
    import pyarrow as pa
    import pyarrow.fs as pafs

    class Exact(pafs.FSSpecHandler):
        """Fetches what is read and nothing around it, as pyarrow itself knows what it will read."""

        def open_input_file(self, path: str) -> pa.PythonFile:
            return pa.PythonFile(self.fs.open(path, mode="rb", cache_type="none"), mode="r")

    return pafs.PyFileSystem(Exact(store))


def metadata_of(path: Path) -> "pq.FileMetaData":
    """The footer of a Parquet file."""
    import pyarrow.parquet as pq

    return pq.read_metadata(arrow_path(path), filesystem=arrow_system(path) if is_remote(path) else None)


def open_parquet(path: Path, **options: Any) -> "pq.ParquetFile":
    """A Parquet file to read from; to be closed."""
    import pyarrow.parquet as pq

    if not is_remote(path):
        return pq.ParquetFile(path, **options)
    return pq.ParquetFile(arrow_path(path), filesystem=arrow_system(path), **options)
