"""Our side: the stages record.scan and record.merge, run as `python -m pipeline record` runs them.

Run: python -m tests.benchmarks.peer.our_side TASK.json, see `Task` in tests/benchmarks/peer/task.py.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.commands.run import run_pipeline
from pipeline.config.run_file import load_config
from pipeline.schemas import UNITS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import load_language_model
from stages import STAGES
from stages.record.scan import Recorder
from stages.settings import SECTIONS
from tests.benchmarks.peer.clock import MB, Cost, bare_forward, bytes_in, measured


def record(run_file: str) -> tuple[int, float]:
    """Run the two stages; returns the number of units, and the MB of the partial tables in between."""
    config = load_config(run_file, SECTIONS)
    partials = 0.0
    for stage in ("record.scan", "record.merge"):
        if run_pipeline(config, STAGES, [stage]):
            raise SystemExit(f"recording failed, see {config.root}")
        partials = max(partials, bytes_in(config.root / "_partials") / MB)
    return Tables(config.root).count(UNITS), partials


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    subject = load_config(task["run_file"], SECTIONS).subject
    model: Any = load_language_model(subject.model, subject.dtype, subject.device).model.base_model
    record(task["warm_run_file"])
    cost = Cost()
    tokens = torch.from_numpy(np.load(task["tokens"]))
    bare_forward(lambda batch: model(input_ids=batch, use_cache=False), torch.split(tokens, task["batch_size"]), cost)
    with measured(type(model), cost, Recorder):
        cost.records, cost.passing_mb = record(task["run_file"])
    cost.print()


if __name__ == "__main__":
    main()
