"""How fast partials are merged, beside merely reading them, and how fast a unit is fetched from the dataset.

Sixteen partials of made-up activations (normal, 64 tokens, both polarities, the default settings) are written by another
process; then all their columns are read, and then they are merged and published, in the shards of the stage. The last
line is JSON:

    merge_over_read         time of merging over that of reading and decoding all columns of the partials
    published_over_read     the same with the writing of the final tables
    read_mb_per_second      size of the files of the partials over the time of reading them
    merge_mb_per_second     the same for merging and publishing: a disk slower than this is what a merge waits for
    peak_mb                 memory of the merging process at its peak
    fetch_ms                time to read the exemplars of one unit of 46,080 from the open dataset, median

Run it with `python -m tests.benchmarks.bench_merge [--units 4608] [--parts 16]`.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Record
from pipeline.schemas import EXEMPLARS, UNITS, TableSchema
from pipeline.shards import publish
from pipeline.stage import Shard
from pipeline.tables import Tables
from stages.record.merge import merge
from stages.record.partial_files import Partials
from stages.record.partials import PARTIALS
from tests.benchmarks.made_up_partials import MODULE, TOKEN_IDS, write_partials

FETCHED_UNITS = 46_080
FETCHES = 60


def read_everything(tables: Tables) -> float:
    """Seconds for reading all columns of all partials, a row group at a time."""
    started = time.perf_counter()
    for table in PARTIALS:
        for path in tables.files(table):
            file = pq.ParquetFile(path, page_checksum_verification=True)
            for group in range(file.num_row_groups):
                file.read_row_group(group)
    return time.perf_counter() - started


def merge_everything(source: Tables, target: Tables, units: int) -> tuple[float, float]:
    """Seconds for merging all units, and for publishing their rows."""
    config, texts = Record(), {token_id: f" {token_id}" for token_id in TOKEN_IDS.tolist()}
    started = time.perf_counter()
    partials = Partials(source)
    merging, publishing = time.perf_counter() - started, 0.0
    for number, start in enumerate(range(0, units, config.shard_units)):
        started = time.perf_counter()
        stop = min(start + config.shard_units, units)
        rows = merge(partials.about(MODULE, start, stop), MODULE, start, stop, config, texts)
        merged = time.perf_counter()
        for table in (EXEMPLARS, UNITS):
            publish_as(target, table, rows[table.name], f"part-{number:05d}")
        merging += merged - started
        publishing += time.perf_counter() - merged
    return merging, publishing


def publish_as(tables: Tables, table: TableSchema, rows: pa.Table, name: str) -> None:
    publish(tables.file(table, name), rows, table, {}, Shard(name, {}), 0.0)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=4608)
    parser.add_argument("--parts", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        started = time.perf_counter()
        writer = multiprocessing.get_context("spawn").Process(
            target=write_partials, args=(root, options.units, options.parts)
        )
        writer.start()
        writer.join()
        writing = time.perf_counter() - started
        source, target = Tables(root), Tables(root / "final")
        merge([], MODULE, 0, 1, Record(), {})
        size = sum(path.stat().st_size for table in PARTIALS for path in source.files(table))
        reading = [read_everything(source)]
        merging, publishing = merge_everything(source, target, options.units)
        reading.append(read_everything(source))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        final = sum(path.stat().st_size for table in (EXEMPLARS, UNITS) for path in target.files(table))
        fetches = fetch(target, root / "whole")
    read = min(reading)
    found = {
        "merge_over_read": merging / read,
        "published_over_read": (merging + publishing) / read,
        "read_mb_per_second": size / 2**20 / read,
        "merge_mb_per_second": size / 2**20 / (merging + publishing),
        "peak_mb": peak,
        "fetch_ms": statistics.median(fetches) * 1000,
    }
    print(
        f"{options.parts} partials of {options.units:,} units, {size / 2**20:,.0f} MiB; final {final / 2**20:,.0f} MiB"
    )
    for label, seconds in (("writing", writing), ("reading", read), ("merging", merging), ("publishing", publishing)):
        print(f"{label:34}{seconds:10.2f} s")
    print(f"{'first fetch, which opens the files':34}{fetches[0] * 1000:10.2f} ms")
    for label, value in found.items():
        print(f"{label:34}{value:10.3f}")
    print(json.dumps({name: round(value, 5) for name, value in found.items()}))


if __name__ == "__main__":
    main()
