"""Run several stages one after the other."""

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pipeline.config import RunConfig
from pipeline.errors import UserError, nearest
from pipeline.execution.progress import say
from pipeline.execution.provenance import FILE, keep_provenance
from pipeline.execution.runner import ALONE, discard, run_stage
from pipeline.execution.series import Progress
from pipeline.execution.shared_shards import SECONDS_BETWEEN_LOOKS, Sharing, open_claims
from pipeline.execution.survey import Stages, survey
from pipeline.llm.endpoint.response_cache import forget_useless
from pipeline.storage.tables import Tables, has_rows, prune
from pipeline.storage.temporary_names import remove_run_leftovers

DONE, FAILED, WAITING = 0, 1, 3
"""Exit codes: all is there; rows or shards failed; other workers have what is left. 2 is a mistake of the user."""


def parse_part(text: str) -> tuple[int, int]:
    """The pair (i, n) of `i/n`: every n-th shard from the i-th on, counted from 0.

    Raises:
        UserError: not of that form, or i is not below n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard {text!r}; expected I/N with I from 0 to N-1, such as 3/16")
    return int(match[1]), int(match[2])


ARRAYS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("SLURM_PROCID", "SLURM_NTASKS", ""),
)
"""Environment variables with a task's number, how many tasks there are, and the number of the first one."""


def part_of(text: str) -> tuple[int, int]:
    """As `parse_part`; `auto` reads the number of this task and how many there are from what Slurm says, and nothing is all.

    Raises:
        UserError: neither of that form, nor known.
    """
    if text != "auto":
        return parse_part(text or "0/1")
    for number, tasks, first in ARRAYS:
        if number in os.environ and tasks in os.environ:
            start = int(os.environ.get(first, "0"))
            return parse_part(f"{int(os.environ[number]) - start}/{os.environ[tasks]}")
    raise UserError(
        "--shard auto reads SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, or SLURM_PROCID and SLURM_NTASKS, and neither is "
        "set here; write --shard I/N, or leave it out to share the work by claims"
    )


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
    how: Sharing = ALONE,
    redo: str = "",
    report: Callable[[], str] = str,
    *,
    rows_may_fail: bool = False,
) -> int:
    """Run the named stages and report; returns the exit code: DONE, FAILED or WAITING.

    Args:
        redo: name of a stage, or of its group, such as `record`; what it and the stages after it made is deleted first.
        report: what to print once all stages are finished.
        rows_may_fail: rows that failed are told, and are no failure of this worker.

    Raises:
        UserError: the input is at fault.
    """
    prepare_redo(config, stages, redo)
    remove_run_leftovers(config.root)
    before = survey(config, stages)
    prune_partials(lambda: before, config, stages, wait=how.wait)
    missing = [name for name in names if not before[name].finished]
    check_stages(config, stages, missing)
    if not missing:
        say(f"Everything is done in {config.root}: nothing to compute.")
        if not (config.root / FILE).exists():
            keep_provenance(config, stages)
    for name in missing:
        after = run_stage(stages[name], config, stages, how)
        keep_provenance(config, stages)
        if after.broken:
            say(f"{len(after.broken)} of {len(after.shards)} shards of {name} failed; run again to retry them")
            return FAILED
        if not after.finished:
            say(f"{name}: {len(after.todo)} shards are left to other workers; run again when they are finished")
            return WAITING
        prune_partials(partial(survey, config, stages), config, stages, wait=how.wait)
    return _conclude(config, stages, names, report, rows_may_fail=rows_may_fail)


def _conclude(
    config: RunConfig, stages: Stages, names: Sequence[str], report: Callable[[], str], *, rows_may_fail: bool
) -> int:
    found = survey(config, stages)
    if all(progress.finished for progress in found.values()):
        sys.stdout.write(report())
    failed = {name: found[name].failed_rows for name in names if found[name].failed_rows}
    for name, rows in failed.items():
        say(f"{name}: {rows} rows failed; their column `error` says why")
    return FAILED if failed and not rows_may_fail else DONE


def check_stages(config: RunConfig, stages: Stages, names: Sequence[str]) -> None:
    """Raises UserError where one of some stages could not work."""
    for name in names:
        for narrowed in stages[name].by_methods(config).values():
            stages[name].check(narrowed)


def prepare_redo(config: RunConfig, stages: Stages, redo: str) -> None:
    """Delete what a stage or a group of stages made, and the stages after it; nothing where `redo` is empty.

    Raises:
        UserError: other workers are at the run, and would work on with what is deleted.
    """
    if not redo:
        return
    with open_claims(config) as claims:
        for stage in stages:
            for shard, owner in claims.held(stage).items():
                where = f"process {owner.pid} on {owner.host}" if owner else "another worker"
                raise UserError(
                    f"--redo while {where} is at work on {stage} {shard}; end it first (python -m pipeline cancel, or Ctrl-C "
                    f"there); a worker that died counts as one for {config.launch.lease:.0f} s"
                )
    forget_useless(config.root / "_replies")
    discard([name for name in stages if redo in (name, name.split(".")[0])], config, stages)


def prune_partials(
    look: Callable[[], Mapping[str, Progress]], config: RunConfig, stages: Stages, *, wait: bool
) -> None:
    """Remove the rows of temporary tables that no stage needs any more, unless another worker does so or still reads them.

    Args:
        look: how far all stages are; asked only where there are such rows.
        wait: wait for who still reads them; a worker that died is waited for as long as a lease.
    """
    for writer in stages.values() if not config.run.keep_partials else ():
        tables = [table for table in writer.writes if table.temporary]
        taking_part = [stage for stage in stages.values() if stage.takes_part(config)]
        readers = [stage.name for stage in taking_part if writer.name in stage.upstream(config)]
        if not tables or not readers or not has_rows(Tables(config.root), tables):
            continue
        found = look()
        if not all(found[name].finished for name in readers):
            continue
        with open_claims(config) as claims:
            while (reading := any(map(claims.held, readers))) and wait:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            if not reading and claims.take("_prune", writer.name):
                prune(Tables(config.root), tables)
