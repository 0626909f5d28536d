"""The shards of a stage among several workers: which of them this one may compute now, and when nothing is left for it."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import ClaimLost, UserError
from pipeline.execution.series import Series
from pipeline.execution.stage import Shard, Stage
from pipeline.execution.stopping import STOPPING
from pipeline.storage.claim_files import claims_in
from pipeline.storage.claims import WORKERS, Claim, Claims, this_process
from pipeline.storage.footers import read_footer
from pipeline.storage.stores import is_remote, states
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
    return Claims(claims_in(config.root), config.launch.lease)


def worker_name(claims: Claims, part: tuple[int, int]) -> str:
    """A name that no other worker of the run goes by now; the same ones come again, as replies are kept by them."""
    base = f"{part[0]}-of-{part[1]}"
    names = (base if number == 1 else f"{base}-{number}" for number in count(1))
    return next(name for name in names if claims.take(WORKERS, name))


def refuse_split_budget(config: RunConfig, claims: Claims) -> None:
    """Workers share a budget by a file on a disk, so where the run's folder is in a store, those of one machine do.

    Raises:
        UserError: there is a budget, and a worker on another machine.
    """
    if not is_remote(config.root) or (config.budget.max_tokens_total, config.budget.max_cost) == (None, None):
        return
    for owner in claims.held(WORKERS).values():
        if owner and owner.machine != this_process().machine:
            raise UserError(
                f"{config.root} has a budget, and a worker on {owner.host} is at work on it; where the run's folder is in a store, "
                "a budget holds for the workers of one machine alone. Wait for that one, or leave [budget] out"
            )


def error_note(config: RunConfig, stage: Stage, shard: Shard) -> Path:
    """Where the error of a shard is kept."""
    return config.root / "_failed" / f"{stage.name}-{shard.name}.json"


class SharedShards:
    """The shards of a stage that are left, for this worker and those beside it."""

    def __init__(self, stage: Stage, series: Series, claims: Claims, how: Sharing) -> None:
        self._stage, self._series, self._claims = stage, series, claims
        self._config, self._shards = series.config, series.shards
        config, shards = series.config, series.shards
        self.wait = how.wait
        """Whether to wait for shards that others are at work on."""
        self.published = len(series.done)
        """Shards that are published, as far as is known."""
        self._own = {shard.name for number, shard in enumerate(shards) if number % how.part[1] == how.part[0]}
        self._tables = Tables(config.root)
        self._failed_before = self._failures(shards)
        self.at_most = how.at_most
        """Shards that it computes at most."""
        self.taken = 0
        """Shards that it has begun."""
        self._left_half_way: dict[str, set[Path]] = {}

    def rounds(self, tell: Callable[[], None]) -> Iterator[list[Shard]]:
        """Shards that may be free, again and again, until nothing is left that this worker could do or should wait for.

        Args:
            tell: is called when `published` may have grown.
        """
        quiet_since, pause = time.monotonic(), FIRST_SECONDS
        while True:
            left = self.left()
            self.published = len(self._shards) - len(left)
            tell()
            held = self._claims.held(self._stage.name)
            free = [shard for shard in left if shard.name in self._own and shard.name not in held]
            if not left or self._is_over():
                return
            before = self.taken
            if free:
                yield free
            elif not self.wait:
                return
            if held or free:
                quiet_since = time.monotonic()
            elif (
                time.monotonic() - quiet_since > self._config.launch.lease
            ):  # the others were not started, or are no more
                return
            if self.taken == before:
                time.sleep(pause)
                pause = min(1.5 * pause, SECONDS_BETWEEN_LOOKS)

    def take(self, shard: Shard) -> Claim | None:
        """The claim of a shard that nobody else computes, and that is not there yet."""
        if self._is_over() or self._is_there(shard):  # a look costs less than a claim, and others finish most of them
            return None
        if (claim := self._claims.take(self._stage.name, shard.name)) is None:
            return None
        if self._is_there(shard):
            self._claims.release(claim)
            return None
        self._left_half_way[claim.name] = {path for path in self._files(shard) if path.exists()}
        self.taken += 1
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
        """Make room for a file that is stale, or that a worker which died half way has left; no other file is ever replaced.

        Raises:
            ClaimLost: another worker has taken over.
        """
        if not self.holds(claim):
            raise ClaimLost(f"another worker has taken over {claim.name}")
        if path in self._left_half_way.get(claim.name, ()):
            path.unlink(missing_ok=True)

    def _is_over(self) -> bool:
        return STOPPING.is_set() or (self.at_most is not None and self.taken >= self.at_most)

    def left(self) -> list[Shard]:
        """Shards that are not published, and have not failed since this worker began."""
        there = [{path.stem for path in self._tables.files(table)} for table in self._stage.writes]
        missing = [
            shard
            for shard in self._shards
            if not all(shard.name in names for names in there) or not self._is_current(shard)
        ]
        failures = self._failures(missing)
        return [shard for shard in missing if failures[shard.name] in (None, self._failed_before[shard.name])]

    def _files(self, shard: Shard) -> list[Path]:
        return [self._tables.file(table, shard.name) for table in self._stage.writes]

    def _is_there(self, shard: Shard) -> bool:
        return all(path.exists() for path in self._files(shard)) and self._is_current(shard)

    def _is_current(self, shard: Shard) -> bool:
        """Whether a shard that was stale has been made anew by now."""
        if shard.name not in self._series.stale:
            return True
        try:
            return all(read_footer(path).read == self._series.read[shard.name] for path in self._files(shard))
        except UserError:  # another worker is just replacing it
            return False

    def _failures(self, shards: Sequence[Shard]) -> dict[str, Hashable]:
        """What tells one note of a shard's error from another; None where there is none."""
        notes = states([error_note(self._config, self._stage, shard) for shard in shards])
        return {shard.name: note for shard, note in zip(shards, notes, strict=True)}
