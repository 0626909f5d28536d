"""A worker of the toy pipeline as a process: `python -m tests.pipeline.execution.sharing_worker FOLDER COUNT SECONDS [I/N] [--no-wait]`.

Every shard takes so many seconds, and leaves a line in computed.txt.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from pipeline.commands.run import part_of, run_pipeline
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Context, Shard, Stage
from pipeline.execution.stopping import heeding_signals
from tests.pipeline.toy import COUNT, SQUARE, toy_config

LEASE = 1.0


def slow(stage: Stage, folder: Path, seconds: float) -> Stage:
    """A stage that takes its time and leaves a trace."""

    def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
        with (folder / "computed.txt").open("a", encoding="utf-8") as file:
            file.write(f"{stage.name} {shard.name} {os.getpid()}\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        rows = stage.process(shard, context)
        assert isinstance(rows, Mapping)
        return rows

    return replace(stage, process=process)


def main() -> None:
    """Ends with the exit code of `run`."""
    folder, count, seconds, *rest = sys.argv[1:]
    config = toy_config(Path(folder), count=int(count))
    config = config.model_copy(update={"launch": config.launch.model_copy(update={"lease": LEASE})})
    stages = {stage.name: slow(stage, Path(folder), float(seconds)) for stage in (COUNT, SQUARE)}
    part = next((word for word in rest if "/" in word), "")
    how = Sharing(part_of(part), wait="--no-wait" not in rest)
    with heeding_signals():
        raise SystemExit(run_pipeline(config, stages, list(stages), how, rows_may_fail="--rows-may-fail" in rest))


if __name__ == "__main__":
    main()
