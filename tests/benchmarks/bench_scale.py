"""Time and memory of a run against its units, its corpus, and the workers that share it.

Runs are made up in which only models are missing (see `scale.made_up_run`): plans, claims, files and footers are the real ones. Each
operation on each run has a process of its own, so that its peak of memory is its own; what a process takes to start is left out. Exponents
are those of the CPU time and of the peak memory: slopes of least squares lines through the logarithms, over the three largest sizes. The
last line is JSON:

    units, corpus            tables: CPU time and peak memory of each operation, by the size of the run
    workers                  a table: seconds and peak memory of the largest process, by their number
    largest                  units of the largest run
    time_exponent            the largest exponent of any operation against the units, of its CPU time
    memory_exponent          the same of its peak memory
    unit_ms, unit_first_ms   one unit of the largest run with its exemplars and texts: median of 99 after the first, and the first
    top_ms, top_first_ms     the 100 best of all its scores: median of 4 after the first, and the first

A unit has 12 exemplars of 16 tokens, where the default settings keep 85 of 64, and two controls, where they simulate 23. Of runs with more
than 10,000 units, 8 shards are scored, and the seconds are those of all; the other scores are made up.

Run it with `python -m tests.benchmarks.bench_scale [--units 1000,10000,100000,1000000] [--sequences 4096,16384,65536] [--workers 1,2,4]`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.scale.made_up_run import open_config

SEQUENCES = 8192
"""Of runs that differ in their units."""
FEW = 2_000
"""Units of runs that differ in their corpus, if no run has fewer."""
SHARED = 10_000
"""Units of the run that workers share, likewise."""
MADE_UP = ("record", "explain", "simulate", "fill score")
"""Operations that only make what the others read."""
OPERATIONS = (
    "record",
    "merge",
    "explain",
    "simulate",
    "score",
    "fill score",
    "status",
    "verify",
    "unit",
    "top",
    "report",
)
SHOWN = ("merge", "score", "status", "verify", "report")
MAKERS = 2
"""Processes that make what is made up."""
Figures = dict[str, Any]


def measure(folder: Path, units: int, sequences: int, operation: str, workers: int = 1) -> Figures:
    """What an operation takes in so many processes: seconds from the first start to the last end, and the largest peak of memory."""
    arguments = [str(folder), str(units), str(sequences), operation]
    command = [sys.executable, "-m", "tests.benchmarks.scale.operations", *arguments]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(workers)]
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{operation} of {units:,} units failed")
    found: list[Figures] = [json.loads(text.splitlines()[-1]) for text in printed]
    ends = [one["begun"] + one["seconds"] for one in found]
    whole = {"seconds": max(ends) - min(one["begun"] for one in found), "peak_mb": max(one["peak_mb"] for one in found)}
    whole |= {"units": units, "sequences": sequences, "operation": operation, "workers": workers}
    print(
        json.dumps(whole | {name: value for name, value in found[0].items() if name not in {*whole, "begun"}}),
        flush=True,
    )
    return found[0] | whole


@contextmanager
def made_up_run(parent: Path, units: int, sequences: int) -> Iterator[Path]:
    """A folder for a run, removed afterwards."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    open_config(folder, units, sequences)
    yield folder
    shutil.rmtree(folder)


def of_size(parent: Path, units: int, sequences: int) -> dict[str, Figures]:
    """What each operation takes on a run."""
    with made_up_run(parent, units, sequences) as folder:
        return {name: measure(folder, units, sequences, name, MAKERS if name in MADE_UP else 1) for name in OPERATIONS}


def of_workers(parent: Path, units: int, counts: Sequence[int]) -> dict[str, dict[str, str]]:
    """What merging and scoring takes by so many workers: a column for each number of them."""
    found: dict[str, dict[str, str]] = {plural(count, "worker"): {} for count in counts}
    with made_up_run(parent, units, SEQUENCES) as folder:
        for before, name in ((("record",), "merge"), (("explain", "simulate"), "score")):
            for one in before:
                measure(folder, units, SEQUENCES, one, MAKERS)
            for count in counts:
                found[plural(count, "worker")][name] = cell(measure(folder, units, SEQUENCES, name, count), "seconds")
                if count != counts[-1]:
                    measure(folder, units, SEQUENCES, f"forget {name}")
    return found


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """How values grow: the power of the size that fits the three largest best; NaN of one size."""
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0])


def table(sizes: Sequence[int], found: Sequence[Mapping[str, Figures]], what: str) -> dict[str, dict[str, str]]:
    """Columns of sizes and of exponents; a row for each operation."""
    columns = {
        f"{size:,} {what}": {name: cell(one[name], "cpu_seconds") for name in SHOWN}
        for size, one in zip(sizes, found, strict=True)
    }
    for label, key in (("CPU time grows with the power", "cpu_seconds"), ("memory", "peak_mb")):
        columns[label] = {name: f"{exponent(sizes, [one[name][key] for one in found]):.2f}" for name in SHOWN}
    return columns


def steepest(sizes: Sequence[int], found: Sequence[Mapping[str, Figures]], key: str) -> float:
    """The largest exponent of any operation."""
    return max(exponent(sizes, [one[name][key] for one in found]) for name in SHOWN)


def cell(figures: Figures, key: str) -> str:
    """Seconds, of the clock or of the CPU, and megabytes as text."""
    seconds = figures[key]
    return f"{seconds:,.{1 if seconds < 100 else 0}f} s, {figures['peak_mb']:,.0f} MB"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def numbers(text: str) -> list[int]:
    """Numbers between commas, in rising order."""
    return sorted(int(number) for number in text.split(",") if number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=numbers, default=numbers("1000,10000,100000,1000000"))
    parser.add_argument("--sequences", type=numbers, default=numbers("4096,16384,65536"))
    parser.add_argument("--workers", type=numbers, default=numbers("1,2,4"))
    options = parser.parse_args()
    most = options.units[-1]
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        shared = of_workers(parent, min(SHARED, most), options.workers)
        corpora = [of_size(parent, min(FEW, most), sequences) for sequences in options.sequences]
        runs = [of_size(parent, units, SEQUENCES) for units in options.units]
    largest = runs[-1]
    print(
        json.dumps(
            {
                "units": table(options.units, runs, "units"),
                "corpus": table(options.sequences, corpora, "sequences"),
                "workers": shared,
                "largest": most,
                "time_exponent": round(steepest(options.units, runs, "cpu_seconds"), 3),
                "memory_exponent": round(steepest(options.units, runs, "peak_mb"), 3),
                **{f"{name}_ms": round(largest[name]["median_ms"], 1) for name in ("unit", "top")},
                **{f"{name}_first_ms": round(largest[name]["first_ms"], 1) for name in ("unit", "top")},
            }
        )
    )


if __name__ == "__main__":
    main()
