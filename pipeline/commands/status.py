"""Every stage's shards, failures, pace, and tokens used, without loading a model."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.commands.query import format_table
from pipeline.config import LanguageModel, RunConfig
from pipeline.execution.series import Progress
from pipeline.execution.shared_shards import open_claims
from pipeline.execution.stage import MethodReport, Stage
from pipeline.execution.survey import Stages, survey
from pipeline.llm.endpoint.reply_files import read_other
from pipeline.llm.endpoint.stored_replies import local_replies
from pipeline.results.run_caveats import caveats
from pipeline.storage.tables import Tables

Line = list[str | int | None]
SECONDS_BETWEEN_LOOKS = 5.0
CLEAR = "\033[2J\033[H"
"""What empties a terminal."""
PAID = """
SELECT model, count(*), sum(prompt_tokens), sum(completion_tokens)
FROM (SELECT model, prompt_tokens, completion_tokens FROM replies
    UNION ALL SELECT model, prompt_tokens, completion_tokens FROM lost) GROUP BY model"""


def watch_status(config: RunConfig, stages: Stages, reports: Sequence[MethodReport]) -> None:
    """Print the status again and again, until all is done, or until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            text = status_text(config, stages, reports)
            sys.stdout.write(f"{CLEAR if sys.stdout.isatty() else ''}{time.strftime('%H:%M:%S')}\n{text}\n")
            sys.stdout.flush()
            if all(progress.finished for progress in survey(config, stages).values()):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)


def status_text(config: RunConfig, stages: Stages, reports: Sequence[MethodReport]) -> str:
    """The stages, the workers at work, the jobs of a scheduler, and what the p-values of the scores show."""
    parts = [status_table(config, stages), at_work(config, stages), _queue(config), _discovered(config, reports)]
    unusual = [f"{words}." for words in caveats(config.model_dump(mode="json"))]
    return "\n\n".join(filter(None, [*unusual, *parts]))


def at_work(config: RunConfig, stages: Stages) -> str:
    """Who is at work on which shard, where, and since when; then when the stages at work will end. Empty without workers."""
    with open_claims(config) as claims:
        held = {stage: claims.held(stage) for stage in stages}
    rows: list[Line] = []
    ends = []
    for stage, shards in held.items():
        for shard, owner in sorted(shards.items()):
            if owner is None:
                rows.append([stage, shard, "unknown", None, None, None])
                continue
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(owner.since))
            rows.append([stage, shard, owner.host, owner.pid, owner.job or None, since])
    for progress in survey(config, stages).values() if rows else ():
        workers = len({(owner.host, owner.pid) for owner in held[progress.stage.name].values() if owner})
        if workers and (pace := progress.seconds_per_shard):
            end = time.localtime(time.time() + pace * len(progress.todo) / workers)
            ends.append(f"{progress.stage.name} ends at about {time.strftime('%H:%M', end)} with {workers} workers.")
    if not rows:
        return ""
    columns = ["stage", "shard", "host", "process", "job", "since"]
    return "\n".join([f"At work:\n{format_table(columns, rows)}", *ends])


def _discovered(config: RunConfig, reports: Sequence[MethodReport]) -> str:
    """How many explanations do better than their controls; empty where nothing is scored."""
    from pipeline.results.discoveries import discoveries
    from pipeline.results.run_folder import open_run

    if not config.root.is_dir():
        return ""
    run = open_run(config.root)
    found = [one for report in reports if report.table in run.tables for one in discoveries(run.connection, report)]
    return "\n".join(f"{', '.join(one.methods.values())}: {one.sentence}" for one in found)


def _queue(config: RunConfig) -> str:
    """What Slurm says of the jobs of the run; empty without any."""
    from pipeline.execution.launch.frozen import launches
    from pipeline.execution.launch.slurm import queue_of

    stages = {job: stage for launch in launches(config.root) for stage, job in launch.jobs.items()}
    lines: list[Line] = [[stages.get(job.split("_")[0]), job, *rest] for job, *rest in queue_of(list(stages))]
    columns = ["stage", "job", "state", "time", "node or reason"]
    return f"In the queue of Slurm:\n{format_table(columns, lines)}" if lines else ""


def status_table(config: RunConfig, stages: Stages) -> str:
    """A line for each stage: shards done, failed, left; rows that failed; seconds a shard and time left.

    Where published rows carry tokens of language models, a second table has them by stage and model, with their cost.
    Where replies of endpoints are kept, a third has all that was paid for, in unfinished shards and in vain too.
    """
    columns = ["stage", "done", "failed", "left", "failed rows", "s/shard", "left (s)"]
    lines = [_line(progress) for progress in survey(config, stages).values() if progress.stage.takes_part(config)]
    parts = [format_table(columns, lines)]
    if not config.root.is_dir():
        parts.append(f"Nothing is in {config.root} yet.")
    if used := [line for stage in stages.values() for line in _used(stage, config)]:
        heading = ["stage", "model", "prompt tokens", "reply tokens", "cost"]
        parts.append(f"Used by the finished shards:\n{format_table(heading, used)}")
    if paid := _paid(config.root / "_replies"):
        parts.append(paid)
    return "\n\n".join(parts)


def _line(progress: Progress) -> Line:
    if not progress.ready:
        return [progress.stage.name, "waits", None, None, None, None, None]
    if not progress.shards:
        return [progress.stage.name, "not asked for", None, None, None, None, None]
    pace = progress.seconds_per_shard
    left = len(progress.todo)
    return [
        progress.stage.name,
        str(len(progress.done)),
        len(progress.broken),
        left - len(progress.broken),
        progress.failed_rows,
        None if pace is None else f"{pace:.1f}",
        None if pace is None else f"{pace * left:.0f}",
    ]


def _used(stage: Stage, config: RunConfig) -> Iterator[Line]:
    """Tokens and cost of a stage's published rows, a line for each model that took part."""
    uses = [use for narrowed in stage.by_methods(config).values() if (use := stage.asks(narrowed))]
    models = {use.model.model: use.model for use in uses}
    for table in stage.writes:
        counts = ["prompt_tokens", "completion_tokens"]
        if not {"model", *counts} <= set(table.schema.names) or not Tables(config.root).files(table):
            continue
        rows = Tables(config.root).read(table, columns=["model", *counts])
        sums = rows.group_by("model").aggregate([(name, "sum") for name in counts]).sort_by("model")
        for row in sums.to_pylist():
            prompt, reply = (row[f"{name}_sum"] or 0 for name in counts)
            if prompt or reply:
                cost = _shown_cost(models.get(row["model"]), prompt, reply)
                yield [stage.name, row["model"], f"{prompt:,}", f"{reply:,}", cost]


def _shown_cost(engine: LanguageModel | None, prompt_tokens: int, completion_tokens: int) -> str | None:
    """A cost as text: `unknown` without the prices; None, a dash in the table, for a model in this process."""
    if engine is None or engine.base_url is None:
        return None
    cost = engine.cost(prompt_tokens, completion_tokens)
    return "unknown" if cost is None else f"{cost:,.4f}"


def _paid(folder: Path) -> str:
    """What the workers that are not at work now have paid endpoints for, by model; empty without any."""
    found = {
        file.stem: read_other(file, lambda replies: replies.execute(PAID).fetchall())
        for file in sorted(local_replies(folder).glob("*.sqlite"))
    }
    if not found:
        return ""
    models: dict[str, list[int]] = {}
    for model, *numbers in (row for rows in found.values() for row in rows or ()):
        before = models.get(model, [0, 0, 0])
        models[model] = [one + other for one, other in zip(before, numbers, strict=True)]
    busy = [worker for worker, rows in found.items() if rows is None]
    title = "Paid for" + (f", without the workers at work now ({', '.join(busy)})" if busy else "") + ":"
    lines = [[model, *(f"{number:,}" for number in numbers)] for model, numbers in sorted(models.items())]
    return f"{title}\n{format_table(['model', 'replies', 'prompt tokens', 'reply tokens'], lines)}"
