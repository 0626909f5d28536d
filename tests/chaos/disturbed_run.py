"""A run that is disturbed, and what must hold after each disturbance: nothing finished is lost, no stored reply is asked for again."""

import random
import re
import shutil
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.storage.claim_files import ClaimFolder
from pipeline.storage.claims import WORKERS, Claims
from pipeline.storage.tables import is_pruned
from stages import STAGES
from tests.chaos.quick_run import CONCURRENCY, NAME, copied_run, write_run
from tests.chaos.workers import Worker, fork
from tests.cluster.compare import differing
from tests.integration.kills import published
from tests.integration.made_up_model import reply
from tests.pipeline.llm.endpoint.loopback import Loopback

STOPPED = (0, 1, 2, 3, 130, 143)
"""Exit codes that mean something; see docs/cluster.md."""
IGNORED = re.compile("^Exception ignored in.*\n(Traceback .*)?", re.MULTILINE)
"""What Python says of a signal that came while an object was deleted; the run ends once its shard is finished."""
SMALL = 60
"""Tokens of a request's prompt below which it is one of those that find out what an endpoint can do; each worker may ask them anew."""
BY_SIGNAL = (-signal.SIGKILL, -signal.SIGTERM)


@dataclass
class Tally:
    """What was done, and what went wrong."""

    kills: int = 0
    corruptions: int = 0
    disk_full: int = 0
    double_runs: int = 0
    paid_twice: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    """In words, with the output of the process that was at fault."""
    stages: Counter[str] = field(default_factory=Counter)
    """Kills by the last stage that had finished a shard."""
    ways: Counter[str] = field(default_factory=Counter)
    """Disturbances by kind."""

    def counts(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}


@dataclass(frozen=True)
class Place:
    """What the disturbed runs share."""

    folder: Path
    material: Path
    calm: Path
    """The run file of a run that nobody disturbed."""
    seconds: float
    """That it took."""
    tally: Tally
    drawn: random.Random
    port: int

    def server(self, **options: Any) -> Loopback:
        """A server where that of the undisturbed run was: replies are kept by their address."""
        server = Loopback(reply, **options)
        server.port = self.port
        return server


class DisturbedRun:
    """A quick run in a folder of its own."""

    def __init__(
        self,
        place: Place,
        server: Loopback,
        folder: Path | None = None,
        *,
        is_copy: bool = False,
        more: str = "retries = 4",
    ) -> None:
        """Make the run file.

        Args:
            folder: where to; a new one unless given.
            is_copy: begin with a copy of the run that nobody disturbed.
            more: further settings of the language model.
        """
        self.place, self.tally, self.server = place, place.tally, server
        self.folder = folder or Path(tempfile.mkdtemp(prefix="run-", dir=place.folder))
        if is_copy:
            self.file = copied_run(place.calm, self.folder / "copy", server.base_url)
        else:
            self.file = write_run(self.folder, place.material, server.base_url, more=more)
        self.root = self.file.parent / NAME
        self.logs = place.folder / "logs"
        self.asked = 0
        """Requests of stages that the server has answered, or was about to when its asker died."""
        server.reply = self._reply
        self._seen: dict[Path, tuple[int, int]] = {}
        self._wasted = self.wasted()

    def start(self, *arguments: str, hook: Callable[..., None] | None = None, values: Sequence[Any] = ()) -> Worker:
        """A worker at this run: `run`, unless arguments say otherwise."""
        return fork(self.log(), *self.command(*arguments), hook=hook, values=values)

    def command(self, *arguments: str) -> list[str]:
        """The arguments of the command line."""
        return [*(arguments or ("run",)), "--config", str(self.file)]

    def log(self) -> Path:
        """A new file for what a process prints."""
        self.logs.mkdir(exist_ok=True)
        return self.logs / f"{len(list(self.logs.iterdir())):05d}.log"

    def ended(self, worker: Worker, allowed: Sequence[int] = (0,)) -> int:
        """The exit code of a worker, which must be one of some, and whose output must have no traceback."""
        try:
            code = worker.wait()
        except TimeoutError as error:
            self.problem(str(error))
            return -1
        printed = worker.printed()
        if code not in allowed:
            self.problem(f"exit code {code} of {' '.join(worker.arguments)}", printed)
        elif "Traceback (most recent" in IGNORED.sub("", printed):
            self.problem(f"a traceback of {' '.join(worker.arguments)}", printed)
        elif code == 2 and "neurogloss: " not in printed:
            self.problem("exit code 2 without a message", printed)
        return code

    def check(self, killed: int = 0, *, paid: bool = True) -> None:
        """Count what is lost or was paid twice, once no process is at the run.

        Args:
            killed: workers that were killed by SIGKILL since the last time; each may have had requests in flight.
        """
        now = published(self.root)
        for path, stamp in self._seen.items():
            if now.get(path) != stamp and not (path in now and is_pruned(path)):
                self.tally.lost += 1
                self.problem(f"{path} was finished, and then {'made again' if path in now else 'lost'}")
        self._seen = now
        before, self._wasted = self._wasted, self.wasted()
        excess = self._wasted - before - CONCURRENCY * killed
        if paid and excess > 0:
            self.tally.paid_twice += excess
            self.problem(f"{excess} replies were asked for again")

    def look(self) -> None:
        """Take the finished shards for what they are now."""
        self._seen = published(self.root)

    def finish(self, *, paid: bool = True, code: int = 0) -> None:
        """An undisturbed end: the same command gives the rows of the run that nobody disturbed, and leaves nothing behind."""
        self.ended(self.start(), (code,))
        self.check(paid=paid)
        self.compare()
        left = [*self.root.rglob(".*.tmp-*"), *self._claimed()]
        if left:
            self.problem(f"left over: {', '.join(map(str, left[:3]))}")
        self.discard()

    def compare(self) -> None:
        """Count the tables whose rows differ."""
        if found := differing(self.place.calm.parent / NAME, self.root):
            self.tally.lost += len(found)
            self.problem(f"rows differ: {found}")

    def _claimed(self) -> list[str]:
        """What is claimed; a claim whose owner is no more is none."""
        claims = Claims(ClaimFolder(self.root / "_claims"), 60.0)
        return [f"{stage} {shard}" for stage in (*STAGES, WORKERS) for shard in claims.held(stage)]

    def discard(self) -> None:
        """Free the disk, unless something is to be looked at."""
        if not any(str(self.folder) in problem for problem in self.tally.problems):
            shutil.rmtree(self.folder, ignore_errors=True)

    def stage(self) -> str:
        """The last stage that has finished a shard."""
        tables = {path.parent for path in published(self.root)}
        reached = [name for name, stage in STAGES.items() if self.root / stage.writes[-1].path in tables]
        return reached[-1] if reached else "none"

    def wasted(self) -> int:
        """Replies that the server made and no worker has stored."""
        with tempfile.TemporaryDirectory() as name:
            keys = set()
            for file in (self.root / "_replies").glob("*.sqlite*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, name)
            for file in Path(name).glob("*.sqlite"):
                with closing(sqlite3.connect(file)) as replies:
                    try:
                        keys |= {
                            key
                            for (key,) in replies.execute("SELECT key FROM replies WHERE prompt_tokens >= ?", (SMALL,))
                        }
                    except sqlite3.DatabaseError:  # killed before it had its tables, or damaged
                        continue
        return self.asked - len(keys)

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        made = reply(body)
        self.asked += made["usage"]["prompt_tokens"] >= SMALL
        return made

    def problem(self, text: str, printed: str = "") -> None:
        """Note what went wrong, and say it at once."""
        self.tally.problems.append(f"{self.folder}: {text}\n{printed[-3000:]}")
        print(self.tally.problems[-1], flush=True)  # noqa: T201


def copied(place: Place, server: Loopback) -> DisturbedRun:
    """A finished run to disturb."""
    return DisturbedRun(place, server, is_copy=True)
