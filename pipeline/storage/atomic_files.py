"""Files that are there as a whole or not at all, for readers, other writers, and after a crash.

A file is written under a name that starts with a dot and does not end in `.parquet`, flushed to disk and renamed or linked. Into a
store it is put, where a file appears once all of it has arrived.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import ClaimLost, UserError
from pipeline.storage.stores import is_remote, put
from pipeline.storage.temporary_names import temporary_path

UNWRITABLE = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM,
    errno.EROFS,
}  # fmt: skip
"""Errors of a full disk, of a limit on what may be written, or of a folder that cannot be made or written."""
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""Errors of file systems without hard links."""


@contextlib.contextmanager
def atomic_path(path: Path, claimed: Callable[[], None] | None = None) -> Iterator[Path]:
    """A local path to write; its file gets the name `path`, flushed to disk, when the block ends without an error.

    Args:
        claimed: called right before the move, which then never replaces a file; raises ClaimLost to prevent it.

    Raises:
        ClaimLost: another worker has published `path`.
    """
    temporary = temporary_path(path)
    try:
        with disk_errors_told(path):
            temporary.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            flush(temporary)
            if claimed:
                claimed()
            _give_name(temporary, path, new=claimed is not None)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def publish_once(path: Path, content: bytes) -> bool:
    """Write a small file whole under a name that nothing has yet; False, and nothing is written, where another was faster."""
    with disk_errors_told(path):
        temporary = temporary_path(
            path.with_name(f"{path.name}-{secrets.token_hex(4)}")
        )  # threads may write the same file
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            flush(temporary)
            _give_name(temporary, path, new=True)
        except ClaimLost:
            return False
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _give_name(temporary: Path, path: Path, *, new: bool) -> None:
    """Have a whole file appear under its name. Raises ClaimLost: it should be new, and there is one."""
    if is_remote(path):
        try:
            put(path, temporary, new=new)
        except FileExistsError:
            raise ClaimLost(f"another worker has made {path}") from None
        return
    if not new or not link_if_new(temporary, path):
        os.replace(temporary, path)
    flush(path.parent)


def link_if_new(temporary: Path, path: Path) -> bool:
    """Give a file a second name, where nothing has that name; False on a file system without links.

    Raises:
        ClaimLost: there is a file of that name.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        if os.stat(temporary).st_nlink == 1:  # else NFS made it, its answer was lost, and the repeated request failed
            raise ClaimLost(f"another worker has made {path}") from None
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    return True


@contextlib.contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Raises UserError where `path` cannot be written: a full disk, or a folder that may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in UNWRITABLE:
            raise UserError(
                f"cannot write {path}: {error.strerror}; make room or give another folder, then run again"
            ) from None
        raise


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
