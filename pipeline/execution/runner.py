"""Run a stage over its shards: what is done stays, what is missing is computed, what does not fit stops the run."""

import asyncio
import inspect
from collections.abc import Callable, Collection, Sequence

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.kept_plan import KeptPlan, all_plans
from pipeline.execution.progress import ShardProgress, say
from pipeline.execution.series import Progress, Series
from pipeline.execution.shard_work import ShardWork
from pipeline.execution.shared_shards import SharedShards, Sharing, open_claims, refuse_split_budget, worker_name
from pipeline.execution.stage import Context, Stage
from pipeline.execution.survey import Stages, survey
from pipeline.storage.tables import Tables, is_pruned
from pipeline.storage.temporary_names import remove_leftovers

ALONE = Sharing()


def run_stage(stage: Stage, config: RunConfig, stages: Stages, how: Sharing = ALONE, *, show: bool = True) -> Progress:
    """Compute the shards of a stage that are missing and that no other worker has.

    Args:
        show: show progress on standard error.

    Raises:
        UserError: the input is at fault, or the stages it reads are not finished.
    """
    everything = survey(config, stages, stage.name)
    before = everything[stage.name]
    if not before.ready:
        unfinished = [name for name in stage.upstream(config) if not everything[name].finished]
        raise UserError(f"{stage.name} reads {', '.join(unfinished)}, which is not finished; run that first")
    if any(series.further for series in before.series):
        for series in before.series:
            if series.further:
                KeptPlan(config.root, stage.name, series.prefix).extend(series.further)
        before = survey(config, stages, stage.name)[stage.name]
    if before.finished:
        return before
    if stale := sum(len(series.stale) for series in before.series):
        say(f"{stage.name}: {stale} shards are made anew, as what they were made from has changed")
    _refuse_pruned(stage, stages, config)
    for table in stage.writes:
        remove_leftovers(config.root / table.path)
    with (
        open_claims(config) as claims,
        ShardProgress(stage.title, len(before.shards), len(before.done), show=show) as bar,
    ):
        worker = worker_name(claims, how.part)
        refuse_split_budget(config, claims)
        shared = [(series, SharedShards(stage, series, claims, how)) for series in before.series]
        for wait in dict.fromkeys(
            (how.wait and len(shared) == 1, how.wait)
        ):  # before waiting, what is free by other methods
            for series, shards in shared:
                shards.wait = wait
                if how.at_most is not None:
                    shards.at_most = how.at_most - sum(one.taken for _, one in shared if one is not shards)
                _compute(stage, series, shards, worker, bar, lambda: bar.reach(sum(one.published for _, one in shared)))
    return survey(config, stages, stage.name)[stage.name]


def _compute(
    stage: Stage, series: Series, shards: SharedShards, worker: str, bar: ShardProgress, tell: Callable[[], None]
) -> None:
    if not shards.left():
        return
    work = ShardWork(stage, Context(series.config, stage, worker), series, bar, shards, tell)
    if inspect.iscoroutinefunction(stage.process):
        asyncio.run(work.compute_concurrently(_in_flight(stage, series.config, len(series.todo))))
    else:
        work.compute()


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
