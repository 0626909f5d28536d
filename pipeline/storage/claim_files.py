"""Where claims are kept: four operations on small texts with names, each whole or not at all for everybody who shares the store.

Claims need no more than that, and file systems have it as object stores with conditional put do.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from pipeline.errors import ClaimLost, UserError
from pipeline.storage.atomic_files import disk_errors_told, link_if_new
from pipeline.storage.stores import ask, is_remote, put
from pipeline.storage.temporary_names import temporary_path

TRIES = 5
"""NFS may call a file stale that was replaced this moment; opened again, it is the new one."""


class ClaimStore(Protocol):
    """Small texts by name; a name is FOLDER/FILE."""

    def names(self, folder: str) -> list[str]:
        """The names in a folder; none where there is no such folder."""

    def create(self, name: str, text: str) -> bool:
        """Make a text that was not there; False where it was. Of several that try at once, one makes it."""

    def replace(self, name: str, text: str) -> None:
        """Put another text in its place. Only who created a name does this, so nothing has to be compared."""

    def read(self, name: str) -> str | None:
        """The text; None where there is none."""

    def delete(self, name: str) -> None:
        """Remove it, where it is there."""


class ClaimFolder:
    """Claims as files. Safe on NFS: a link is made exclusively by the server, and opening a file asks the server for it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        """As in ClaimStore."""
        try:
            return [f"{folder}/{name}" for name in os.listdir(self.root / folder) if not name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def create(self, name: str, text: str) -> bool:
        """As in ClaimStore; raises UserError where the disk is full or cannot be written."""
        path = self.root / name
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._written_beside(path, text) as temporary:
                return _made_new(temporary, path, text)

    def replace(self, name: str, text: str) -> None:
        """As in ClaimStore."""
        path = self.root / name
        with self._written_beside(path, text) as temporary:
            os.replace(temporary, path)

    def read(self, name: str) -> str | None:
        """As in ClaimStore."""
        for _ in range(TRIES):
            try:
                return (self.root / name).read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
        return None

    def delete(self, name: str) -> None:
        """As in ClaimStore."""
        (self.root / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _written_beside(self, path: Path, text: str) -> Iterator[Path]:
        temporary = temporary_path(
            path.with_name(f"{path.name}-{secrets.token_hex(8)}")
        )  # threads may write the same claim
        try:
            temporary.write_text(text, encoding="utf-8")
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


class ClaimObjects:
    """Claims in an object store: of several puts that want the name to be free, the store lets one through."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store: Any = cast(Any, root).fs

    def names(self, folder: str) -> list[str]:
        """As in ClaimStore."""
        try:
            listed = ask(self._store.ls, self._name(folder), False)
        except FileNotFoundError:
            return []
        return [f"{folder}/{name.rpartition('/')[2]}" for name in listed]

    def create(self, name: str, text: str) -> bool:
        """As in ClaimStore; raises UserError where the store refuses it or does not answer."""
        try:
            put(self.root / name, text.encode(), new=True)
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, text: str) -> None:
        """As in ClaimStore."""
        ask(self._store.pipe_file, self._name(name), text.encode())

    def read(self, name: str) -> str | None:
        """As in ClaimStore."""
        try:
            content: bytes = ask(self._store.cat_file, self._name(name))
        except FileNotFoundError:
            return None
        return content.decode(errors="replace")

    def delete(self, name: str) -> None:
        """As in ClaimStore."""
        with contextlib.suppress(FileNotFoundError):
            ask(self._store.rm_file, self._name(name))

    def _name(self, name: str) -> str:
        return str(cast(Any, self.root / name).path)


def claims_in(root: Path) -> ClaimStore:
    """The claims in a run's folder.

    Raises:
        UserError: the store has no conditional put, so that two workers could make the same claim.
    """
    folder = root / "_claims"
    if not is_remote(root):
        return ClaimFolder(folder)
    store, name = ClaimObjects(folder), f"_trial/{secrets.token_hex(8)}"
    made = [store.create(name, ""), store.create(name, "")]
    store.delete(name)
    if made != [True, False]:
        raise UserError(
            f"{root} is in a store that replaces files where it is asked not to, so workers could not share a run; use another store"
        )
    return store


def _made_new(temporary: Path, path: Path, text: str) -> bool:
    try:
        if not link_if_new(temporary, path):
            with path.open(
                "x", encoding="utf-8"
            ) as file:  # others may see it empty for a moment, which is a claim all the same
                file.write(text)
    except (FileExistsError, ClaimLost):
        return False
    return True
