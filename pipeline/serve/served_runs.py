"""The runs of a server: one run and those that lie beside it, or several that were named.

A run is known by the name of its folder. A run that appears beside the first one while the server works is found, too.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.report.data_scripts import as_script
from pipeline.results.run_folder import RunFolder, open_run
from pipeline.serve.attempts import Attempts
from pipeline.serve.live_run import LiveRun, NotFoundError

LOOK_AGAIN = 5.0
"""Seconds after which other runs are looked for again."""
Opener = Callable[[], Attempts]
"""Opens what simulates explanations and runs the subject of a run."""


class ServedRuns:
    """Which runs there are, and the data of each. Its methods may be called in threads."""

    def __init__(
        self, roots: Sequence[Path], methods: Sequence[MethodReport], trials: Callable[[Path], Opener | None]
    ) -> None:
        """
        Args:
            roots: folders of runs. Beside a single one all others in the same folder are served.
            trials: by a run's folder, what can be tried on it; None where its run file is not known.

        Raises:
            UserError: one of the folders is not there, or two have one name.
        """
        self._named = {root.absolute().name: open_run(root.absolute()).root for root in roots}
        if len(self._named) < len(roots):
            names = [root.absolute().name for root in roots]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"two of the runs are called {twice}; serve one of them, or rename its folder")
        self._methods, self._trials = methods, trials
        self._first = next(iter(self._named))
        self._lock = threading.RLock()
        self._roots, self._looked = dict(self._named), 0.0
        self._live: dict[str, LiveRun] = {}
        self._openers: dict[str, Opener] = {}

    def names(self) -> list[str]:
        """The first run, then the others by name."""
        return list(self._known())

    def run(self, name: str = "") -> LiveRun:
        """A run by its name; the first one without a name. Raises NotFoundError: there is none of that name."""
        name = name or self._first
        with self._lock:
            root = self._known().get(name)
            if root is None:
                raise NotFoundError(f"there is no run {name[:100]!r} here; /api/runs lists those that there are")
            if name not in self._live:
                self._live[name] = LiveRun(root, self._methods, lambda: self._can_try(name))
            return self._live[name]

    def opener(self, name: str = "") -> Opener | None:
        """What can be tried on a run, the same object each time; None where its run file is not known.

        Raises:
            UserError: its run file cannot be read any more.
        """
        name = name or self._first
        root = self.run(name).root
        with self._lock:
            if name not in self._openers and (found := self._trials(root)) is not None:
                self._openers[name] = found
            return self._openers.get(name)

    def script(self, name: str, wanted: str) -> str:
        """The script of data/WANTED.js of a run: `runs`, or one of those of `LiveRun.script`."""
        if wanted == "runs":
            return as_script("runs", {"name": name or self._first, "runs": self.names()})
        return self.run(name).script(wanted)

    def describe(self) -> list[dict[str, Any]]:
        """All runs, as the API lists them; one whose files cannot be read is left out, and says so at its own address."""
        found = []
        for name in self.names():
            with contextlib.suppress(UserError, OSError, pa.ArrowException, duckdb.Error):
                found.append(self.run(name).describe())
        return found

    def _can_try(self, name: str) -> dict[str, Any]:
        try:
            can = self.opener(name) is not None
        except UserError:
            can = False
        return {"simulate": can, "activations": can}

    def _known(self) -> dict[str, Path]:
        with self._lock:
            if len(self._named) == 1 and time.monotonic() - self._looked > LOOK_AGAIN:
                self._roots = self._named | _beside(self._named[self._first])
                self._live = {name: live for name, live in self._live.items() if name in self._roots}
                self._looked = time.monotonic()
            return self._roots


def _beside(root: Path) -> dict[str, Path]:
    """The other runs in the folder of a run, by name."""
    found = {}
    for folder in sorted(root.parent.iterdir()):
        if folder != root and not folder.name.startswith((".", "_")) and _is_run(folder):
            found[folder.name] = folder
    return found


def _is_run(folder: Path) -> bool:
    try:
        return folder.is_dir() and bool(RunFolder(folder).tables)
    except OSError:
        return False
