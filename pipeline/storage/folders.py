"""Folders that are there as a whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage.atomic_files import disk_errors_told
from pipeline.storage.temporary_names import remove_leftovers, temporary_path


@contextlib.contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path`, which gets that name when the block ends without an error.

    What a killed process left behind is removed by the next one that makes the same folder.

    Args:
        replace: a folder that is there already gives way to the new one.

    Raises:
        UserError: there is something at `path` that is not to be replaced, or the disk is full or cannot be written.
    """
    if not replace and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} is there already; give the name of a new folder, or remove what is there")
    temporary, old = temporary_path(path), temporary_path(path.with_name(f"{path.name}-old"))
    with disk_errors_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        remove_leftovers(path.parent, f"{path.name}-old")
        temporary.mkdir()
        try:
            yield temporary
            if replace and path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
