"""Run a stage over its shards: what is done stays, what is missing is computed, what does not fit stops the run."""

import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Awaitable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.concurrency import TURN, bounded_gather
from pipeline.execution.kept_plan import KeptPlan, all_plans
from pipeline.execution.progress import ShardProgress, say
from pipeline.execution.series import Progress, Series
from pipeline.execution.stage import Context, Rows, Shard, Stage
from pipeline.execution.survey import Stages, note_of, survey
from pipeline.storage.atomic_files import atomic_path, remove_leftovers
from pipeline.storage.footers import footer as shard_footer
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables, is_pruned

SECONDS_BETWEEN_NOTES = 1.0


def run_stage(
    stage: Stage, config: RunConfig, stages: Stages, part: tuple[int, int] = (0, 1), *, show: bool = True
) -> Progress:
    """Compute the shards of a stage that are missing.

    Args:
        part: (i, n) computes every n-th shard, from the i-th on.
        show: show progress on standard error.

    Raises:
        UserError: the input is at fault, or the stages it reads are not finished.
    """
    everything = survey(config, stages)
    before = everything[stage.name]
    if not before.ready:
        waiting = [name for name in stage.upstream(config) if not everything[name].finished]
        raise UserError(f"{stage.name} reads {', '.join(waiting)}, which is not finished; run that first")
    if any(series.further for series in before.series):
        for series in before.series:
            if series.further:
                KeptPlan(config.root, stage.name, series.prefix).extend(series.further)
        before = survey(config, stages)[stage.name]
    mine = {shard.name for number, shard in enumerate(before.shards) if number % part[1] == part[0]}
    todo = [shard.name for shard in before.todo if shard.name in mine]
    if not todo:
        return before
    if stale := sum(len(series.stale) for series in before.series):
        say(f"{stage.name}: {stale} shards are made anew, as what they were made from has changed")
    _refuse_pruned(stage, stages, config)
    for table in stage.writes:
        remove_leftovers(config.root / table.path)
    with ShardProgress(stage.title, len(mine), len(mine) - len(todo), show=show) as bar:
        for series in before.series:
            shards = [shard for shard in series.todo if shard.name in mine]
            if shards:
                _compute(stage, series, shards, f"{part[0]}-of-{part[1]}", bar)
    return survey(config, stages)[stage.name]


def _compute(stage: Stage, series: Series, shards: Sequence[Shard], worker: str, bar: ShardProgress) -> None:
    work = _Work(stage, Context(series.config, stage, worker), series, bar)
    if inspect.iscoroutinefunction(stage.process):
        asyncio.run(work.compute_concurrently(shards, _in_flight(stage, series.config, len(shards))))
    else:
        for shard in shards:
            work.compute(shard)


def _in_flight(stage: Stage, config: RunConfig, shards: int) -> int:
    """Shards under way at a time: one in this process; enough for all places at an endpoint, as each asks something; all in a
    batch, which is submitted when every unit has said what it asks."""
    use = stage.asks(config)
    if use is None or use.model.base_url is None:
        return 1
    return shards if use.model.mode == "batch" else use.model.concurrency


def discard(names: Sequence[str], config: RunConfig, stages: Stages) -> None:
    """Delete the files of some stages and of every stage that depends on them.

    Raises:
        UserError: one of them could not run again, as the rows that it reads were removed; nothing is deleted then.
    """
    tables = Tables(config.root)
    stale = set(names)
    for stage in stages.values():
        if stale & {stage.name, *stage.upstream(config)}:
            stale.add(stage.name)
            _refuse_pruned(stage, stages, config, stale)
    for stage in reversed(list(stages.values())):  # first what was made from others, so that a kill leaves no orphans
        if stage.name in stale:
            for table in reversed(stage.writes):
                for path in tables.files(table):
                    path.unlink()
            for plan in all_plans(config.root, stage.name):
                plan.forget()


class _Work:
    """Computes and publishes shards; an error that is not the user's is noted and the run goes on."""

    def __init__(self, stage: Stage, context: Context, series: Series, bar: ShardProgress) -> None:
        self._stage, self._context, self._series, self._bar = stage, context, series, bar
        self._published = time.perf_counter()

    def compute(self, shard: Shard) -> None:
        with self._errors_noted(shard):
            self._publish(shard, cast(Rows, self._stage.process(shard, self._context)))

    async def compute_concurrently(self, shards: Sequence[Shard], limit: int) -> None:
        async def compute(numbered: tuple[int, Shard]) -> None:
            number, shard = numbered
            TURN.set(number)
            with self._errors_noted(shard):
                rows = await cast(Awaitable[Rows], self._stage.process(shard, self._context))
                async with publishing:
                    await asyncio.to_thread(self._publish, shard, rows)

        publishing = asyncio.Lock()
        units = sum(len(shard.key.get("indices", ())) for shard in shards)
        telling = asyncio.create_task(self._tell_now_and_then(units))
        try:
            await bounded_gather(compute, list(enumerate(shards)), limit)
        finally:
            telling.cancel()
            await asyncio.wait([telling])
            await self._context.aclose()

    async def _tell_now_and_then(self, units: int) -> None:
        started = time.monotonic()
        try:
            while True:
                await asyncio.sleep(SECONDS_BETWEEN_NOTES)
                self._tell(units, time.monotonic() - started)
        finally:
            self._tell(units, time.monotonic() - started)

    def _tell(self, units: int, seconds: float) -> None:
        """Say how many of the units are done after so many seconds, when all will be, and what their requests have taken."""
        done = self._context.units_done
        left = f", {tqdm.format_interval(seconds * (units - done) / done)} left" if 0 < done < units else ""
        self._bar.note(", ".join([f"{done:.0f} of {units} units{left}", *self._context.taken()]))

    def _publish(self, shard: Shard, rows: Rows) -> None:
        now = time.perf_counter()
        seconds, self._published = now - self._published, now  # since the shard before, so that they add up to the run
        said = shard_footer(self._series.inputs, shard.key, seconds, self._series.read[shard.name])
        for table in self._stage.writes:
            publish(self._context.tables.file(table, shard.name), rows[table.name], table, said)
        note_of(self._context.config, self._stage, shard).unlink(missing_ok=True)

    @contextmanager
    def _errors_noted(self, shard: Shard) -> Iterator[None]:
        note = note_of(self._context.config, self._stage, shard)
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - one bad shard must not stop the others
            with atomic_path(note) as temporary:
                detail = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
                temporary.write_text(json.dumps(detail, indent=1), encoding="utf-8")
            message = f"{self._stage.name} {shard.name} failed: {type(error).__name__}: {error} (see {note})"
            say(message)
        self._bar.step()


def _refuse_pruned(stage: Stage, stages: Stages, config: RunConfig, made_anew: Collection[str] = ()) -> None:
    """A stage whose input was removed cannot run, unless the stages in `made_anew` make it again first."""
    tables = Tables(config.root)
    for writer in set(stage.upstream(config)).difference(made_anew):
        for table in stages[writer].writes:
            if table.temporary and any(map(is_pruned, tables.files(table))):
                raise UserError(
                    f"{stage.name} reads {tables.folder(table)}, whose rows were removed once it was finished; "
                    f"make them anew with --redo {writer}, and keep them with run.keep_partials = true"
                )
