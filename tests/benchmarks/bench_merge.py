"""How fast partials are merged, beside merely reading them, and how fast a unit is fetched from the dataset.

Sixteen partials of made-up activations (normal, 64 tokens, both polarities, the default settings) are written by another
process; then all their columns are read, and then they are merged and published, in the shards of the stage. The last
line is JSON:

    merge_over_read         time of merging over that of reading and decoding all columns of the partials
    merge_over_read_cpu     the same in CPU time
    published_over_read     the same with the writing of the final tables
    read_mb_per_second      size of the files of the partials over the time of reading them
    merge_mb_per_second     the same for merging and publishing: a disk slower than this is what a merge waits for
    peak_mb                 memory of the merging process at its peak
    fetch_ms                time to read the exemplars of one unit of 46,080 from the open dataset, median

Run it with `python -m tests.benchmarks.bench_merge [--units 2048] [--parts 16]`.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schemas import EXEMPLARS, UNITS, TableSchema
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.record.merge import merge
from stages.record.partial_tables import PARTIALS
from stages.record.partials import Partials
from stages.settings import Record
from tests.benchmarks.made_up_partials import MODULE, TOKEN_IDS, write_partials

FETCHED_UNITS = 46_080
FETCHES = 60


@dataclass
class Clock:
    """Wall and CPU seconds of all blocks that it was held for."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def read_everything(tables: Tables) -> Clock:
    """The time for reading all columns of all partials, a row group at a time."""
    clock = Clock()
    with clock.running():
        for table in PARTIALS:
            for path in tables.files(table):
                file = pq.ParquetFile(path, page_checksum_verification=True)
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
    return clock


def merge_everything(source: Tables, target: Tables, units: int) -> tuple[Clock, Clock]:
    """The time for merging all units, and for publishing their rows."""
    config, texts = Record(), {token_id: f" {token_id}" for token_id in TOKEN_IDS.tolist()}
    merging, publishing = Clock(), Clock()
    with merging.running():
        partials = Partials(source)
    for number, start in enumerate(range(0, units, config.shard_units)):
        stop = min(start + config.shard_units, units)
        with merging.running():
            rows = merge(partials.about(MODULE, start, stop), MODULE, start, stop, config, texts)
        with publishing.running():
            for table in (EXEMPLARS, UNITS):
                publish_as(target, table, rows[table.name], f"part-{number:05d}")
    return merging, publishing


def publish_as(tables: Tables, table: TableSchema, rows: pa.Table, name: str) -> None:
    publish(tables.file(table, name), rows, table, {})


def fetch(tables: Tables, folder: Path) -> list[float]:
    """Seconds for each fetch of a unit of a dataset with 46,080 units, made of copies of the first shard's."""
    whole = Tables(folder)
    rows = pq.read_table(tables.files(EXEMPLARS)[0])
    width = int(rows["index"].to_numpy().max()) + 1
    modules = FETCHED_UNITS // width
    for number in range(modules):
        column = pa.repeat(f"layers.{number}.mlp", len(rows))
        copy = rows.set_column(0, EXEMPLARS.schema.field(0), column)
        publish_as(whole, EXEMPLARS, copy, f"part-{number:05d}")
    rng, found = np.random.default_rng(0), []
    for _ in range(FETCHES):
        module, index = f"layers.{rng.integers(modules)}.mlp", int(rng.integers(width))
        started = time.perf_counter()
        got = whole.read(EXEMPLARS, whole.is_unit(module, [index]))
        found.append(time.perf_counter() - started)
        assert set(got["index"].to_pylist()) == {index}
    return found


def write(root: Path, units: int, parts: int) -> None:
    """Write the partials in another process, whose memory is its own."""
    process = multiprocessing.get_context("spawn").Process(target=write_partials, args=(root, units, parts))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def size_of(tables: Tables, *wanted: TableSchema) -> float:
    """MiB of the files."""
    return sum(path.stat().st_size for table in wanted for path in tables.files(table)) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=2048)
    parser.add_argument("--parts", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, target = Tables(Path(name)), Tables(Path(name) / "final")
        write(source.root, options.units, options.parts)
        warm = Partials(source)
        merge(warm.about(MODULE, 0, 64), MODULE, 0, 64, Record(), {})
        before = read_everything(source)
        merging, publishing = merge_everything(source, target, options.units)
        read = min(before, read_everything(source), key=lambda clock: clock.wall)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        partials, final = size_of(source, *PARTIALS), size_of(target, EXEMPLARS, UNITS)
        fetches = fetch(target, Path(name) / "whole")
    found = {
        "merge_over_read": merging.wall / read.wall,
        "merge_over_read_cpu": merging.cpu / read.cpu,
        "published_over_read": (merging.wall + publishing.wall) / read.wall,
        "read_mb_per_second": partials / read.wall,
        "merge_mb_per_second": partials / (merging.wall + publishing.wall),
        "peak_mb": peak,
        "fetch_ms": statistics.median(fetches) * 1000,
    }
    print(f"{options.parts} partials of {options.units:,} units, {partials:,.0f} MiB; final tables {final:,.0f} MiB")
    for label, clock in (("reading", read), ("merging", merging), ("publishing", publishing)):
        print(f"{label:34}{clock.wall:10.2f} s {clock.cpu:10.2f} s CPU")
    print(f"{'first fetch, which opens the files':34}{fetches[0] * 1000:10.2f} ms")
    for label, value in found.items():
        print(f"{label:34}{value:10.3f}")
    print(json.dumps({label: round(value, 5) for label, value in found.items()}))


if __name__ == "__main__":
    main()
