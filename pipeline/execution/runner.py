"""Run a stage over its shards: what is done stays, what is missing is computed, what does not fit stops the run."""

import asyncio
import inspect
import json
import time
import traceback
from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.concurrency import TURN, bounded_gather
from pipeline.execution.progress import ShardProgress, say
from pipeline.execution.stage import Context, Rows, Shard, Stage
from pipeline.storage.atomic_files import atomic_path
from pipeline.storage.footers import Footer, canonical, fingerprint, read_footer
from pipeline.storage.footers import footer as shard_footer
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables, is_pruned
from pipeline.storage.temporary_names import remove_leftovers

Stages = Mapping[str, Stage]
SECONDS_BETWEEN_NOTES = 1.0


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: Stage
    inputs: Mapping[str, Any]
    """All that can change its rows; their hash is the fingerprint."""
    ready: bool
    """Whether the stages it reads are finished; before that its shards are not known."""
    shards: list[Shard]
    done: dict[str, list[Footer]]
    """Footers of the finished shards, by shard name."""
    broken: list[str]
    """Names of shards whose last attempt ended in an error."""

    @property
    def todo(self) -> list[Shard]:
        return [shard for shard in self.shards if shard.name not in self.done]

    @property
    def finished(self) -> bool:
        return self.ready and not self.todo

    @property
    def failed_rows(self) -> int:
        return sum(footer.failed for footers in self.done.values() for footer in footers)

    @property
    def seconds_per_shard(self) -> float | None:
        """Mean time of the finished shards."""
        times = [footers[-1].seconds for footers in self.done.values()]
        return sum(times) / len(times) if times else None


def survey(config: RunConfig, stages: Stages) -> dict[str, Progress]:
    """Look at the files of all stages, in the order of the data flow.

    Raises:
        UserError: a file is corrupt or foreign, or was made with other settings.
    """
    found: dict[str, Progress] = {}
    for stage in stages.values():
        found[stage.name] = _look(stage, config, found)
    return found


def _look(stage: Stage, config: RunConfig, earlier: Mapping[str, Progress]) -> Progress:
    if not stage.takes_part(config):
        return Progress(stage, {}, True, [], {}, [])
    tables = Tables(config.root)
    inputs = stage.inputs(config, {name: fingerprint(earlier[name].inputs) for name in stage.upstream(config)})
    footers = {path: read_footer(path, table) for table in stage.writes for path in tables.files(table)}
    for path, footer in footers.items():
        _refuse_other(path, footer, stage, inputs)
    if not all(earlier[name].finished for name in stage.upstream(config)):
        return Progress(stage, inputs, False, [], {}, [])
    shards = stage.plan(config, tables)
    _refuse_unplanned(list(footers), stage, shards)
    done = {}
    for shard in shards:
        own = {path: footers[path] for table in stage.writes if (path := tables.file(table, shard.name)) in footers}
        for path, footer in own.items():
            _refuse_other_plan(path, footer, stage, shard)
        if len(own) == len(stage.writes):
            done[shard.name] = list(own.values())
    broken = [shard.name for shard in shards if shard.name not in done and _note(config, stage, shard).exists()]
    return Progress(stage, inputs, True, shards, done, broken)


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
    mine = [shard for number, shard in enumerate(before.shards) if number % part[1] == part[0]]
    todo = [shard for shard in mine if shard.name not in before.done]
    if not todo:
        return before
    _refuse_pruned(stage, stages, config)
    for table in stage.writes:
        remove_leftovers(config.root / table.path)
    context = Context(config, stage, f"{part[0]}-of-{part[1]}")
    done = len(mine) - len(todo)
    with ShardProgress(stage.title, len(mine), done, show=show) as bar:
        work = _Work(stage, context, before.inputs, bar)
        if inspect.iscoroutinefunction(stage.process):
            asyncio.run(work.compute_concurrently(todo, _in_flight(stage, config, len(todo))))
        else:
            for shard in todo:
                work.compute(shard)
    return survey(config, stages)[stage.name]


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
    for stage in stages.values():
        if stage.name in stale:
            for table in reversed(stage.writes):
                for path in tables.files(table):
                    path.unlink()


class _Work:
    """Computes and publishes shards; an error that is not the user's is noted and the run goes on."""

    def __init__(self, stage: Stage, context: Context, inputs: Mapping[str, Any], bar: ShardProgress) -> None:
        self._stage, self._context, self._inputs, self._bar = stage, context, inputs, bar
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
        said = shard_footer(self._inputs, shard.key, seconds)
        for table in self._stage.writes:
            publish(self._context.tables.file(table, shard.name), rows[table.name], table, said)
        _note(self._context.config, self._stage, shard).unlink(missing_ok=True)

    @contextmanager
    def _errors_noted(self, shard: Shard) -> Iterator[None]:
        note = _note(self._context.config, self._stage, shard)
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


def _note(config: RunConfig, stage: Stage, shard: Shard) -> Path:
    """Where the error of a shard is kept."""
    return config.root / "_failed" / f"{stage.name}-{shard.name}.json"


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


def _refuse_other(path: Path, footer: Footer, stage: Stage, inputs: Mapping[str, Any]) -> None:
    """A file that was made with other settings is not part of this run."""
    if footer.fingerprint != fingerprint(inputs):
        changed = "\n".join(f"  {line}" for line in differences(footer.inputs, inputs))
        raise UserError(
            f"{path} was made by {stage.name} with other settings:\n{changed}\n"
            f"Give the run another name (run.name), or discard what was made: --redo {stage.name}"
        )


def _refuse_other_plan(path: Path, footer: Footer, stage: Stage, shard: Shard) -> None:
    """A file that covers another part than planned would leave rows out or bring them twice."""
    if footer.shard != canonical(shard.key):
        raise UserError(
            f"{path} covers {footer.shard}, but the plan says {canonical(shard.key)}: the shard size of {stage.name} "
            f"was changed; set it back, or use --redo {stage.name}"
        )


def _refuse_unplanned(paths: Sequence[Path], stage: Stage, shards: list[Shard]) -> None:
    """A Parquet file that no shard writes would be read as part of the dataset."""
    planned = {f"{shard.name}.parquet" for shard in shards}
    for path in paths:
        if path.name not in planned:
            raise UserError(
                f"{path} belongs to no shard of {stage.name} (the shard size was changed, or it is foreign); "
                f"set the shard size back, move the file away, or use --redo {stage.name}"
            )


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two inputs differ, as `path: old -> new` lines."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
