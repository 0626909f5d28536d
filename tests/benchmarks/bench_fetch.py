"""How fast one unit is fetched from a recorded run.

Units are drawn at random from all that the run recorded. Of each the row of `units` and all rows of `exemplars` are read from the open
dataset. The last line is JSON:

    units           recorded units
    dataset_mb      size of the tables units and exemplars
    fetch_first_ms  time of the first fetch, which opens the files
    fetch_ms        time of a fetch, median
    fetch_95_ms     time that 95 % of the fetches stay below

Run it with `python -m tests.benchmarks.bench_fetch --run outputs/RUN [--fetches 200]`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from pipeline.schemas import EXEMPLARS, UNITS
from pipeline.storage.tables import Tables


def fetch_times(tables: Tables, fetches: int) -> list[float]:
    """Seconds of each fetch."""
    known = tables.read(UNITS, columns=["module", "index"])
    rng, found = np.random.default_rng(0), []
    for row in rng.integers(len(known), size=fetches).tolist():
        module, index = known["module"][row].as_py(), known["index"][row].as_py()
        started = time.perf_counter()
        unit = tables.read(UNITS, tables.is_unit(module, [index]))
        tables.read(EXEMPLARS, tables.is_unit(module, [index]))
        found.append(time.perf_counter() - started)
        assert unit["index"].to_pylist() == [index]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder of a recorded run")
    parser.add_argument("--fetches", type=int, default=200)
    options = parser.parse_args()
    times = fetch_times(Tables(options.run), options.fetches)
    tables = Tables(options.run)
    size = sum(path.stat().st_size for table in (UNITS, EXEMPLARS) for path in tables.files(table))
    found = {
        "units": tables.read(UNITS, columns=["index"]).num_rows,
        "dataset_mb": size / 2**20,
        "fetch_first_ms": times[0] * 1000,
        "fetch_ms": float(np.median(times[1:])) * 1000,
        "fetch_95_ms": float(np.quantile(times[1:], 0.95)) * 1000,
    }
    for label, value in found.items():
        print(f"{label:34}{value:10.2f}")
    print(json.dumps({label: round(value, 3) for label, value in found.items()}))


if __name__ == "__main__":
    main()
