"""How long the score stage takes for 46,080 units, with intervals and controls, on 20 sequences of 64 tokens each.

One shard of 1,024 units is made up and written as the stages before would have written it: a unit has 10 top and 10 random sequences on
the splits select and report, one explanation, and as controls on report those of 20 other units, its opposite, the bare top
token, one sentence for every unit and the full token table. Its activations are noise with some bursts; what is expected is noise
too, but for the explanation itself, which knows most of the bursts. What is timed is the stage itself, which reads this shard
as often as needed, pairs, chooses, scores, and makes the rows; only where they are written is nobody's business. The last line is JSON:

    seconds         time for all of them, in as many workers as there are cores (`make run LAUNCH=local`); compiling comes before
    cpu_seconds     CPU time of all workers
    units           scored units
    peak_mb         memory of a worker at its peak

Run it with `python -m tests.benchmarks.bench_score [--units 46080] [--workers 2]`.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context, Shard
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, SIMULATIONS, UNITS, TableSchema
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.evidence import split_of
from stages.score.score_units import SCORE, SCORES
from stages.score.score_units import process as score_shard
from stages.settings import SECTIONS, Record

context: Context
SHARD = 1024
TOKENS = 64
SEQUENCES = 4096
"""Of the corpus, all splits together."""
EACH = 10
"""Sequences of each band on a split."""
SHUFFLED = 20
SINGLE = ("constant", "top_token", "lookup", "inverted")
MODULE = "layers.0.mlp"
FIRES = 0.02
"""Share of the tokens with a burst."""
Array = npt.NDArray[Any]


def open_config(folder: Path) -> RunConfig:
    """The run file of the made-up run."""
    values = {
        "run": {"name": "run", "folder": str(folder)},
        "subject": {"model": "none", "modules": [MODULE]},
        "corpus": {"source": "none.txt", "seq_len": TOKENS},
    }
    return parse_config(values, "the run file of the benchmark", SECTIONS)


def write_shard(config: RunConfig, units: int) -> None:
    """All that the stage reads of units 0 to `units` - 1."""
    rng, splits = np.random.default_rng(0), [split_of(seq_id) for seq_id in range(SEQUENCES)]
    report = rng.permuted(np.tile(np.flatnonzero(np.array(splits) == "report"), (units, 1)), axis=1)[:, : 2 * EACH]
    sequences = {"report": report, "select": report - 2}  # of four sequences in a row the last one, and the second one
    true = {split: activations(rng, (units, 2 * EACH, TOKENS)) for split in sequences}
    _write(config, CORPUS, {"seq_id": np.arange(SEQUENCES), "split": splits})
    quantiles = np.quantile(true["report"].reshape(units, -1), config[Record].quantiles, axis=1).T
    _write(config, UNITS, {"module": MODULE, "index": np.arange(units), "quantile_boundaries": _lists(quantiles)})
    keys = {"module": MODULE, "polarity": "+", "explainer": "statistics", "status": "ok"}
    words = [f"words about unit {index}" for index in range(units)]
    _write(config, EXPLANATIONS, {**keys, "index": np.arange(units), "candidate": 0, "text": words})
    _write_exemplars(config, sequences, true)
    _write_simulations(config, sequences, true, rng, keys)


def activations(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Noise with bursts."""
    bursts = rng.random(shape) < FIRES
    return np.where(bursts, rng.gamma(4, 0.5, shape), rng.normal(0, 0.1, shape)).astype(np.float32)


def _write_exemplars(config: RunConfig, sequences: Mapping[str, Array], true: Mapping[str, Array]) -> None:
    units = len(true["report"])
    parts = []
    for place, band in enumerate(("top", "random")):
        for split, seq_ids in sequences.items():
            kept = slice(place * EACH, (place + 1) * EACH)
            columns = {
                "module": MODULE,
                "index": np.repeat(np.arange(units), EACH),
                "polarity": "+",
                "band": band,
                "rank": np.tile(np.arange(EACH), units),
                "seq_id": seq_ids[:, kept].ravel(),
                "activations": _lists(true[split][:, kept].reshape(-1, TOKENS)),
                "split": split,
            }
            parts.append(_table(EXEMPLARS, columns))
    _publish(config, EXEMPLARS, pa.concat_tables(parts).sort_by("index"))


def _write_simulations(
    config: RunConfig, sequences: Mapping[str, Array], true: Mapping[str, Array], rng: np.random.Generator, keys: Any
) -> None:
    units = len(true["report"])
    jobs = [("", 0, "select"), ("", 0, "report"), *(("shuffled", 1 + other, "report") for other in range(SHUFFLED))]
    parts = []
    for control, away, split in [*jobs, *((name, 0, "report") for name in SINGLE)]:
        known = (true[split] > 0.6) & (rng.random(true[split].shape) < (0.05 if control else 0.8))
        wrong = rng.random(true[split].shape) < FIRES / 2
        said = np.where(known | wrong, rng.uniform(3, 10, true[split].shape), 0).round(1)
        expected = (rng.uniform(0, 10, said.shape) if control == "lookup" else said).reshape(-1, TOKENS)
        index = np.repeat(np.arange(units), 2 * EACH)
        columns = {
            **keys,
            "index": index,
            "candidate": None if control else 0,
            "simulator": "word",
            "control": control,
            "source": index + away,
            "source_candidate": 0,
            "seq_id": sequences[split].ravel(),
            "split": split,
            "expected": _lists(expected),
            "coverage": _lists(np.ones_like(expected)),
        }
        parts.append(_table(SIMULATIONS, columns))
    _publish(config, SIMULATIONS, pa.concat_tables(parts).sort_by("index"))


def _write(config: RunConfig, table: TableSchema, columns: Mapping[str, Any]) -> None:
    _publish(config, table, _table(table, columns))


def _publish(config: RunConfig, table: TableSchema, rows: pa.Table) -> None:
    path = Tables(config.root).file(table, "part-00000")
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, rows, table, {})


def _table(table: TableSchema, columns: Mapping[str, Any]) -> pa.Table:
    """Rows by columns; a single value stands in all of them, and a column that is left out is null."""
    rows = next(len(values) for values in columns.values() if not isinstance(values, str | int | None))

    def column(field: pa.Field) -> pa.Array:
        values = columns.get(field.name)
        if isinstance(values, str | int | None):
            return pa.repeat(pa.scalar(values, field.type), rows)
        return values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)

    return pa.table([column(field) for field in table.schema], schema=table.schema)


def _lists(values: Array) -> pa.Array:
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(values.ravel().astype(np.float32)))


@dataclass(frozen=True)
class Scored:
    """What a worker did."""

    units: int
    last: pa.Table
    """The rows of its last shard."""
    cpu: float
    peak_mb: float


def begin(folder: str) -> None:
    """Make the stage's context, which a worker has for all of its shards."""
    global context
    context = Context(open_config(Path(folder)), SCORE)


def score_shards(sizes: list[int]) -> Scored:
    """Score shards of so many units each, as the stage does."""
    units, cpu = 0, time.process_time()
    for size in sizes:
        key = {"module": MODULE, "polarity": "+", "indices": list(range(size))}
        rows = score_shard(Shard("part-00000", key), context)[SCORES.name]
        units += rows.num_rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Scored(units, rows, time.process_time() - cpu, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=46_080)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    sizes = [min(SHARD, chosen.units - start) for start in range(0, chosen.units, SHARD)]
    with tempfile.TemporaryDirectory() as name:
        write_shard(open_config(Path(name)), SHARD)
        with ProcessPoolExecutor(chosen.workers, get_context("spawn"), begin, (name,)) as workers:
            list(workers.map(score_shards, [[2]] * chosen.workers * 4))  # each worker is there, and has compiled
            start = time.perf_counter()
            done = list(workers.map(score_shards, [sizes[first :: chosen.workers] for first in range(chosen.workers)]))
            seconds = time.perf_counter() - start
    for column in ("correlation", "correlation_corpus", "f1_corpus", "auprc_corpus_low", "correlation_shuffled"):
        print(
            f"{column:22} mean {np.nanmean(done[0].last[column].to_numpy()):6.3f}, null {done[0].last[column].null_count}"
        )
    cpu, scored, peak = sum(one.cpu for one in done), sum(one.units for one in done), max(one.peak_mb for one in done)
    print(
        json.dumps(
            {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "units": scored, "peak_mb": round(peak)}
        )
    )


if __name__ == "__main__":
    main()
