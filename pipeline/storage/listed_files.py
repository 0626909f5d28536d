"""Which files the folders of tables hold: a folder with thousands of files is listed again only once it has changed."""

import time
from pathlib import Path

from pipeline.storage.stores import files_in, is_remote

SETTLED = 2.0
"""Seconds after which the time of a folder's last change tells it from every later one."""


class ListedFiles:
    """The finished files of folders, in order."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int | None, list[Path]]] = {}

    def of(self, folder: Path) -> list[Path]:
        """Those of one folder, none where there is no such folder: the same list for as long as no file came, went or was replaced."""
        changed = _last_change(folder)
        if folder not in self._known or changed is None or self._known[folder][0] != changed:
            self._known[folder] = changed, files_in(folder, "[!._]*.parquet")
        return self._known[folder][1]


def _last_change(folder: Path) -> int | None:
    """When a file last came, went or was replaced; None where that is not known for sure, as it was a moment ago, or in a store."""
    if is_remote(folder):
        return None
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return None
    return changed if time.time_ns() - changed > SETTLED * 1e9 else None
