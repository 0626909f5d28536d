"""The shards of a stage among several workers: which of them this one may compute now, and when nothing is left for it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import ClaimLost
from pipeline.execution.series import Progress
from pipeline.execution.stage import Shard, Stage
from pipeline.execution.stopping import STOPPING
from pipeline.execution.survey import note_of
from pipeline.storage.claim_files import ClaimFolder
from pipeline.storage.claims import WORKERS, Claim, Claims
from pipeline.storage.tables import Tables

SECONDS_BETWEEN_LOOKS = 1.0
FIRST_SECONDS = 0.1
"""Before the second look; each time half as long again."""


@dataclass(frozen=True)
class Sharing:
    """How a worker shares a run with others."""

    part: tuple[int, int] = (0, 1)
    """(i, n): of every n shards the i-th is its own; (0, 1) leaves it to claims alone."""
    wait: bool = False
    """Wait for shards that others are at work on, and take over those of workers that died."""
    at_most: int | None = None
    """Shards that it computes at most."""


def open_claims(config: RunConfig) -> Claims:
    """The claims of a run."""
    return Claims(ClaimFolder(config.root / "_claims"), config.launch.lease)


def worker_name(claims: Claims, part: tuple[int, int]) -> str:
    """A name that no other worker of the run goes by now; the same ones come again, as replies are kept by them."""
    base = f"{part[0]}-of-{part[1]}"
    names = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(name for name in names if claims.take(WORKERS, name))


Stamp = tuple[int, int]
"""What tells one writing of a file from another."""


def stamps(stage: Stage, config: RunConfig) -> dict[Path, Stamp]:
    """The files of a stage as they are now."""
    tables = Tables(config.root)
    found = {path: _stamp(path) for table in stage.writes for path in tables.files(table)}
    return {path: stamp for path, stamp in found.items() if stamp}


class SharedShards:
    """The shards of a stage that are left, for this worker and those beside it."""

    def __init__(
        self, before: Progress, config: RunConfig, there: Mapping[Path, Stamp], claims: Claims, how: Sharing
    ) -> None:
        """there: the files of the stage at a time before it was looked at. Those of shards that are to be made are old: of a
        worker that died half way, or made from other content than there is now."""
        self._stage, self._config, self._claims, self._how = before.stage, config, claims, how
        self._own = {shard.name for number, shard in enumerate(before.shards) if number % how.part[1] == how.part[0]}
        self._todo, self._done = before.todo, len(before.done)
        self._tables = Tables(config.root)
        self._old = {path: there[path] for shard in self._todo for path in self._files(shard) if path in there}
        self._failed_before = {shard.name: _stamp(note_of(config, self._stage, shard)) for shard in self._todo}
        self._left_half_way: dict[str, set[Path]] = {}
        self._taken = 0

    def rounds(self, shards: Sequence[Shard], tell: Callable[[int], None], *, wait: bool) -> Iterator[list[Shard]]:
        """Those of some shards that may be free, again and again, until none is left that this worker could do or should wait for.

        Args:
            tell: is told how many of the stage's shards are published.
            wait: as in `Sharing`.
        """
        quiet_since, pause = time.monotonic(), FIRST_SECONDS
        while True:
            tell(self._done + len(self._todo) - len(self._left(self._todo)))
            left = self._left(shards)
            held = self._claims.held(self._stage.name)
            free = [shard for shard in left if shard.name in self._own and shard.name not in held]
            if not left or self._is_over():
                return
            before = self._taken
            if free:
                yield free
            elif not wait:
                return
            now = time.monotonic()
            if held or free:
                quiet_since = now
            elif now - quiet_since > self._config.launch.lease:  # the others were not started, or are no more
                return
            if self._taken == before:
                time.sleep(pause)
                pause = min(1.5 * pause, SECONDS_BETWEEN_LOOKS)

    def take(self, shard: Shard) -> Claim | None:
        """The claim of a shard that nobody else computes, and that is not there yet."""
        if self._is_over() or (claim := self._claims.take(self._stage.name, shard.name)) is None:
            return None
        if self._is_published(shard):
            self._claims.release(claim)
            return None
        self._left_half_way[claim.name] = {path for path in self._files(shard) if path.exists()}
        self._taken += 1
        return claim

    def holds(self, claim: Claim) -> bool:
        """Whether the shard is still this worker's."""
        return self._claims.holds(claim)

    def workers(self) -> set[str]:
        """Names of the workers of the run that are at work."""
        return set(self._claims.held(WORKERS))

    def release(self, claim: Claim) -> None:
        """Give it back to all."""
        self._claims.release(claim)

    def before_publishing(self, claim: Claim, path: Path) -> None:
        """Make room for a file that a worker which died half way has left; no other file is ever replaced.

        Raises:
            ClaimLost: another worker has taken over.
        """
        if not self.holds(claim):
            raise ClaimLost(f"another worker has taken over {claim.name}")
        if path in self._left_half_way.get(claim.name, ()):
            path.unlink(missing_ok=True)

    def _is_over(self) -> bool:
        at_most = self._how.at_most
        return STOPPING.is_set() or (at_most is not None and self._taken >= at_most)

    def _files(self, shard: Shard) -> list[Path]:
        return [self._tables.file(table, shard.name) for table in self._stage.writes]

    def _is_published(self, shard: Shard) -> bool:
        """Whether all its files are there, and none is an old one."""
        return all((now := _stamp(path)) and now != self._old.get(path) for path in self._files(shard))

    def _left(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those of some shards that are not published, and have not failed since this worker began."""
        return [shard for shard in shards if not self._is_published(shard) and not self._failed_now(shard)]

    def _failed_now(self, shard: Shard) -> bool:
        stamp = _stamp(note_of(self._config, self._stage, shard))
        return stamp is not None and stamp != self._failed_before[shard.name]


def _stamp(path: Path) -> Stamp | None:
    """Of a file; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
