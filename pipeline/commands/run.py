"""Run several stages one after the other."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence

from pipeline.config import RunConfig
from pipeline.errors import UserError, nearest
from pipeline.execution.progress import say
from pipeline.execution.runner import discard, run_stage
from pipeline.execution.series import Progress
from pipeline.execution.survey import Stages, survey
from pipeline.llm.endpoint.response_cache import forget_useless
from pipeline.storage.tables import Tables, prune


def parse_part(text: str) -> tuple[int, int]:
    """The pair (i, n) of `i/n`: every n-th shard from the i-th on, counted from 0.

    Raises:
        UserError: not of that form, or i is not below n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard {text!r}; expected I/N with I from 0 to N-1, such as 3/16")
    return int(match[1]), int(match[2])


def check_methods(config: RunConfig, stages: Stages) -> None:
    """Raises UserError where the run file names a method that no stage belongs to."""
    known = sorted({stage.method for stage in stages.values() if stage.method})
    for method in config.run.methods:
        if method not in known:
            raise UserError(f"run.methods names {method!r}; {nearest(method, known)}")


def needed_stages(names: Sequence[str], config: RunConfig, stages: Stages) -> list[str]:
    """Some stages and all that they need, in the order of the data flow."""
    wanted = set(names)
    for stage in reversed(list(stages.values())):
        if stage.name in wanted:
            wanted.update(stage.upstream(config))
    return [name for name in stages if name in wanted]


def run_pipeline(
    config: RunConfig,
    stages: Stages,
    names: Sequence[str],
    part: tuple[int, int] = (0, 1),
    redo: str = "",
    report: Callable[[], str] = str,
) -> int:
    """Run the named stages and report; returns the exit code: 0, or 1 where something failed.

    Args:
        redo: name of a stage, or of its group, such as `record`; what it and the stages after it made is deleted first.
        report: what to print once all stages are finished.

    Raises:
        UserError: the input is at fault.
    """
    if redo:
        forget_useless(config.root / "_replies")
        discard([name for name in stages if redo in (name, name.split(".")[0])], config, stages)
    before = survey(config, stages)
    _prune(before, config, stages)
    missing = [name for name in names if not before[name].finished]
    for name in missing:
        for narrowed in stages[name].by_methods(config).values():
            stages[name].check(narrowed)
    if not missing:
        say(f"Everything is done in {config.root}: nothing to compute.")
    for name in missing:
        after = run_stage(stages[name], config, stages, part)
        if after.broken:
            say(f"{len(after.broken)} of {len(after.shards)} shards of {name} failed; run again to retry them")
            return 1
        if not after.finished:
            say(f"{name}: {len(after.todo)} shards belong to other workers; run again when they are finished")
            return 0
        _prune(survey(config, stages), config, stages)
    found = survey(config, stages)
    if all(progress.finished for progress in found.values()):
        sys.stdout.write(report())
    failed = {name: found[name].failed_rows for name in names if found[name].failed_rows}
    for name, rows in failed.items():
        say(f"{name}: {rows} rows failed; their column `error` says why")
    return 1 if failed else 0


def _prune(found: Mapping[str, Progress], config: RunConfig, stages: Stages) -> None:
    """Remove the rows of temporary tables that no stage needs any more."""
    for writer in stages.values() if not config.run.keep_partials else ():
        tables = [table for table in writer.writes if table.temporary]
        taking_part = [stage for stage in stages.values() if stage.takes_part(config)]
        readers = [stage.name for stage in taking_part if writer.name in stage.upstream(config)]
        if tables and readers and all(found[name].finished for name in readers):
            prune(Tables(config.root), tables)
