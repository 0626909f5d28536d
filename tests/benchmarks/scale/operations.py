"""One operation on a run of the scale benchmark, in a process of its own, so that its peak of memory is its own.

    python -m tests.benchmarks.scale.operations FOLDER UNITS SEQUENCES OPERATION

The last line is JSON: seconds, peak_mb, and what the operation has found.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.commands.ready_queries import best
from pipeline.commands.status import status_table
from pipeline.commands.verify import verify
from pipeline.config import RunConfig
from pipeline.execution.runner import discard, run_stage
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Context, Shard
from pipeline.execution.survey import Stages
from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run
from stages import REPORTS
from tests.benchmarks.scale.made_up_run import made_up_stages, open_config, score_rows, width_of

FETCHES = 100
ALL_SCORED, SOME_SHARDS = 10_000, 8
"""Units up to which all are scored; of more, so many shards are."""
TOP = 'SELECT module, "index", text, correlation FROM scores ORDER BY correlation DESC NULLS LAST LIMIT 100'
Figures = dict[str, float]


def run(*names: str) -> Callable[[RunConfig, Stages], Figures]:
    """Run stages."""

    def run_them(config: RunConfig, stages: Stages) -> Figures:
        for name in names:
            done = run_stage(stages[name], config, stages, Sharing(wait=True), show=False)
            assert done.finished, done.broken
        return {}

    return run_them


def score(config: RunConfig, stages: Stages) -> Figures:
    """Score all units; of a large run some shards, with the seconds that all would take."""
    units = len(config.subject.modules) * width_of(config)
    if units <= ALL_SCORED:
        return run("score")(config, stages)
    took: list[tuple[float, float]] = []

    def process(shard: Shard, context: Context) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        rows = stages["score"].process(shard, context)
        took.append((time.perf_counter() - start, time.process_time() - cpu))
        return rows

    start, cpu = time.perf_counter(), time.process_time()
    counted = {**stages, "score": replace(stages["score"], process=process)}
    done = run_stage(counted["score"], config, counted, Sharing(at_most=SOME_SHARDS), show=False)
    whole, cpu = time.perf_counter() - start, time.process_time() - cpu
    left = len(done.shards) - len(took)
    seconds, own = (
        left * statistics.mean(one) for one in zip(*took[1:], strict=True)
    )  # the first one opens what all need
    return {"seconds": whole + seconds, "cpu_seconds": cpu + own, "scored_shards": len(took)}


def fill(config: RunConfig, stages: Stages) -> Figures:
    """Make up the scores that are left."""
    return run("score")(config, {**stages, "score": replace(stages["score"], process=score_rows)})


def forget(*names: str) -> Callable[[RunConfig, Stages], Figures]:
    """Delete what stages made, and the stages after them."""

    def forget_them(config: RunConfig, stages: Stages) -> Figures:
        discard(names, config, stages)
        return {}

    return forget_them


def look(config: RunConfig, stages: Stages) -> Figures:
    """What `status` prints."""
    table = status_table(config, stages)
    assert "score" in table
    return {}


def check(config: RunConfig, stages: Stages) -> Figures:
    """`verify`, with its run file."""
    found = verify(config.root, stages, config)
    assert not [*found.problems, *found.stale, *found.unfinished], found
    return {"rows": found.rows, "files": found.files}


def fetch(config: RunConfig, stages: Stages) -> Figures:
    """Units drawn at random, each with statistics, explanations, scores and exemplars with their texts."""
    run, rng, times = open_run(config.root), np.random.default_rng(0), []
    modules, width = config.subject.modules, width_of(config)
    for _ in range(FETCHES):
        module, index = modules[rng.integers(len(modules))], int(rng.integers(width))
        start = time.perf_counter()
        unit = run.unit(module, index)
        assert len(unit.scores["scores"]) == len(unit.explanations) == 1
        assert len(unit.exemplars) > 1
        times.append(time.perf_counter() - start)
    return {"first_ms": 1000 * times[0], "median_ms": 1000 * statistics.median(times[1:])}


def rank(config: RunConfig, stages: Stages) -> Figures:
    """The 100 explanations with the highest correlations, and the query `best`."""
    run, times = open_run(config.root), []
    for _ in range(5):
        start = time.perf_counter()
        assert len(run.sql(TOP).fetchall()) == 100
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    best(run, "", REPORTS).fetchall()
    ready = time.perf_counter() - start
    return {"first_ms": 1000 * times[0], "median_ms": 1000 * statistics.median(times[1:]), "best_ms": 1000 * ready}


def report(config: RunConfig, stages: Stages) -> Figures:
    """The pages."""
    write_pages(open_run(config.root), REPORTS, lambda done, total: None)
    return {}


OPERATIONS = {
    "record": run("corpus", "record.scan"),
    "merge": run("record.merge"),
    "explain": run("explain"),
    "simulate": run("simulate"),
    "score": score,
    "fill score": fill,
    "forget merge": forget("record.merge"),
    "forget score": forget("score"),
    "status": look,
    "verify": check,
    "unit": fetch,
    "top": rank,
    "report": report,
}


def main(folder: str, units: str, sequences: str, operation: str) -> None:
    config = open_config(Path(folder), int(units), int(sequences))
    stages = made_up_stages(config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun, start, cpu = time.time(), time.perf_counter(), time.process_time()
    figures = OPERATIONS[operation](config, stages)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found: dict[str, Any] = {"begun": begun, "seconds": seconds, "cpu_seconds": cpu, "before_mb": before}
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found | figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
