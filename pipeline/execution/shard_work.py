"""Compute the shards of a stage that this worker gets, and publish them."""

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import cast

from tqdm import tqdm

from pipeline.errors import ClaimLost, UserError
from pipeline.execution.concurrency import TURN, bounded_gather
from pipeline.execution.progress import ShardProgress, say
from pipeline.execution.series import Series
from pipeline.execution.shared_shards import SharedShards, error_note
from pipeline.execution.stage import Context, Rows, Shard, Stage
from pipeline.storage.atomic_files import atomic_path
from pipeline.storage.claims import LAUNCHED, Claim
from pipeline.storage.footers import footer as shard_footer
from pipeline.storage.shards import publish

SECONDS_BETWEEN_NOTES = 1.0


class ShardWork:
    """Computes and publishes shards; an error that is not the user's is noted and the run goes on."""

    def __init__(
        self,
        stage: Stage,
        context: Context,
        series: Series,
        bar: ShardProgress,
        shards: SharedShards,
        tell: Callable[[], None],
    ) -> None:
        """tell: is called when other workers may have published shards."""
        self._tell_published = tell
        self._stage, self._context, self._series, self._bar, self._shards = stage, context, series, bar, shards
        self._published, self._units = time.perf_counter(), 0.0

    def compute(self) -> None:
        for free in self._rounds():
            for shard in free:
                if claim := self._take(shard):
                    with self._errors_noted(shard, claim):
                        self._publish(shard, cast(Rows, self._stage.process(shard, self._context)), claim)

    async def compute_concurrently(self, limit: int) -> None:
        async def compute(numbered: tuple[int, Shard]) -> None:
            number, shard = numbered
            TURN.set(number)
            if claim := self._take(shard):
                with self._errors_noted(shard, claim):
                    rows = await cast(Awaitable[Rows], self._stage.process(shard, self._context))
                    async with publishing:
                        await asyncio.to_thread(self._publish, shard, rows, claim)

        publishing, rounds = asyncio.Lock(), self._rounds()
        telling = asyncio.create_task(self._tell_now_and_then())
        try:
            while free := await asyncio.to_thread(next, rounds, None):
                await bounded_gather(compute, list(enumerate(free)), limit)
        finally:
            telling.cancel()
            await asyncio.wait([telling])
            await self._context.aclose()

    def _take(self, shard: Shard) -> Claim | None:
        claim = self._shards.take(shard)
        if claim:
            self._context.look_again(self._shards.workers())
        return claim

    def _rounds(self) -> Iterator[list[Shard]]:
        for free in self._shards.rounds(self._tell_published):
            self._published = time.perf_counter()  # what was waited for is no time of the next shard
            self._units = self._context.units_done + sum(len(shard.key.get("indices", ())) for shard in free)
            yield free

    async def _tell_now_and_then(self) -> None:
        started = time.monotonic()
        try:
            while True:
                await asyncio.sleep(SECONDS_BETWEEN_NOTES)
                self._tell(time.monotonic() - started)
        finally:
            self._tell(time.monotonic() - started)

    def _tell(self, seconds: float) -> None:
        """Say how many of the units are done after so many seconds, when all will be, and what their requests have taken."""
        done, units = self._context.units_done, self._units
        left = f", {tqdm.format_interval(seconds * (units - done) / done)} left" if 0 < done < units else ""
        self._bar.note(", ".join([f"{done:.0f} of {units:.0f} units{left}", *self._context.taken()]))

    def _publish(self, shard: Shard, rows: Rows, claim: Claim) -> None:
        now = time.perf_counter()
        seconds, self._published = now - self._published, now  # since the shard before, so that they add up to the run
        read, profile = self._series.read[shard.name], self._context.profile()
        said = shard_footer(self._series.inputs, shard.key, seconds, read, profile)
        for table in self._stage.writes:
            file = self._context.tables.file(table, shard.name)
            publish(file, rows[table.name], table, said, partial(self._shards.before_publishing, claim, file))
        error_note(self._context.config, self._stage, shard).unlink(missing_ok=True)
        if LAUNCHED:
            say(f"{self._stage.name} {shard.name}: {seconds:.1f} s")

    @contextmanager
    def _errors_noted(self, shard: Shard, claim: Claim) -> Iterator[None]:
        """Where the stage ends before its time, its shards stay claimed until what was paid for them is closed and others can read it."""
        try:
            yield
            self._bar.step()
        except (UserError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - one bad shard must not stop the others
            if isinstance(error, ClaimLost) or not self._shards.holds(claim):
                say(f"{self._stage.name} {shard.name} was dropped, as another worker has taken it over")
            else:
                self._note(shard, error)
                self._bar.step()
        self._shards.release(claim)

    def _note(self, shard: Shard, error: Exception) -> None:
        note = error_note(self._context.config, self._stage, shard)
        with atomic_path(note) as temporary:
            detail = {
                "error": f"{type(error).__name__}: {error}",
                "traceback": traceback.format_exc(),
                "time": time.time(),
            }
            temporary.write_text(json.dumps(detail, indent=1), encoding="utf-8")
        say(f"{self._stage.name} {shard.name} failed: {type(error).__name__}: {error} (see {note})")
