"""How far each stage of a run is: its shards by the methods that make them, those that are done, and what does not fit."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.content_read import ContentRead
from pipeline.execution.kept_plan import KeptPlan, all_plans, grows, methods_of, pool_of, shard_name
from pipeline.execution.series import Progress, Series
from pipeline.execution.shared_shards import error_note
from pipeline.execution.stage import Methods, Shard, Stage
from pipeline.storage.footers import Footer, canonical, fingerprint, read_footers
from pipeline.storage.stores import states
from pipeline.storage.tables import Tables

Stages = Mapping[str, Stage]


def survey(config: RunConfig, stages: Stages, last: str = "") -> dict[str, Progress]:
    """Look at the files of all stages, in the order of the data flow.

    Args:
        last: stages after this one are left out.

    Raises:
        UserError: a file is corrupt or foreign, or was made with other settings.
    """
    found: dict[str, Progress] = {}
    for stage in stages.values():
        found[stage.name] = _look(stage, config, found)
        if stage.name == last:
            break
    return found


def _look(stage: Stage, config: RunConfig, earlier: Mapping[str, Progress]) -> Progress:
    if not stage.takes_part(config):
        return Progress(stage, True, [], [])
    tables = Tables(config.root)
    footers = {
        path: footer for table in stage.writes for path, footer in read_footers(tables.files(table), table).items()
    }
    upstream = [earlier[name] for name in stage.upstream(config)]
    series = [_series(stage, methods, config, upstream) for methods in stage.methods(config)]
    made_by = {one.prefix: one for one in series}
    for path, footer in footers.items():
        if one := made_by.get(methods_of(path.stem)):
            _refuse_other(path, footer, stage, one.inputs)
    if not all(one.finished for one in upstream):
        return Progress(stage, False, series, [])
    series = [_with_shards(one, stage, config, footers, earlier) for one in series]
    planned = {shard.name for one in series for shard in one.shards}
    planned |= {shard.name for plan in all_plans(config.root, stage.name) for shard in plan.shards}
    _refuse_unplanned(footers, stage, planned)
    todo = [shard for one in series for shard in one.todo]
    noted = states([error_note(config, stage, shard) for shard in todo])
    broken = [shard.name for shard, note in zip(todo, noted, strict=True) if note]
    return Progress(stage, True, series, broken)


def _series(stage: Stage, methods: Methods, config: RunConfig, upstream: Iterable[Progress]) -> Series:
    config = config.with_methods(methods)
    read = {one.stage.name: made.inputs if (made := one.by(methods)) else {} for one in upstream}
    return Series(config, methods, stage.inputs(config, {name: fingerprint(inputs) for name, inputs in read.items()}))


def _with_shards(
    series: Series, stage: Stage, config: RunConfig, footers: Mapping[Path, Footer], earlier: Mapping[str, Progress]
) -> Series:
    """The series with its shards: as planned, but of a plan that grows those that were kept, and further ones."""
    tables, prefix = Tables(config.root), series.prefix
    shards = [
        Shard(shard_name(prefix, number), {**series.methods, **shard.key})
        for number, shard in enumerate(stage.plan(series.config, tables))
    ]
    further: list[Shard] = []
    kept = KeptPlan(config.root, stage.name, prefix)
    if grows(shards) or kept.shards:
        further = kept.further(shards, _pool(stage, series.methods, config, earlier))
        there = {path.stem for path in footers}
        shards = [*kept.wanted(shards, there), *further]
    content = ContentRead(stage, series.methods, earlier, config)
    done: dict[str, list[Footer]] = {}
    read: dict[str, Mapping[str, str]] = {}
    stale: list[str] = []
    for shard in shards:
        read[shard.name] = content.of(shard)
        own = {path: footers[path] for table in stage.writes if (path := tables.file(table, shard.name)) in footers}
        for path, footer in own.items():
            _refuse_other_plan(path, footer, stage, shard)
        if len(own) == len(stage.writes):
            if any(footer.read != read[shard.name] for footer in own.values()):
                stale.append(shard.name)
            else:
                done[shard.name] = list(own.values())
    return replace(series, shards=shards, further=further, done=done, read=read, stale=stale)


def _pool(stage: Stage, methods: Methods, config: RunConfig, earlier: Mapping[str, Progress]) -> dict[str, Any]:
    """The part of a shard's key that says which shards hold the rows that it takes for controls: those that there are now."""
    if stage.pool is None:
        return {}
    name, pooled = stage.pool(config, methods)
    made = earlier[name].by(pooled)
    return {"pool": pool_of([shard.name for shard in made.shards] if made else [])}


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


def _refuse_unplanned(paths: Iterable[Path], stage: Stage, planned: Collection[str]) -> None:
    """A Parquet file that no shard writes would be read as part of the dataset."""
    for path in paths:
        if path.stem not in planned:
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
