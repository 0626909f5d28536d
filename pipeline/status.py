"""Every stage's shards, failures and pace, without loading a model."""

from pipeline.config import RunConfig
from pipeline.query import format_table
from pipeline.runner import Progress, Stages, survey


def status_table(config: RunConfig, stages: Stages) -> str:
    """A line for each stage: shards done, failed, left; rows that failed; seconds a shard and time left."""
    columns = ["stage", "done", "failed", "left", "failed rows", "s/shard", "left (s)"]
    return format_table(columns, [_line(progress) for progress in survey(config, stages).values()])


def _line(progress: Progress) -> list[str | int | None]:
    if not progress.ready:
        return [progress.stage.name, "waits", None, None, None, None, None]
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
