"""The toy pipeline, whose runs take a moment: hundreds of kills of its workers in a minute."""

import shutil
import signal
import tempfile
from pathlib import Path

from pipeline.storage.tables import Tables
from tests.chaos.disturbed_run import BY_SIGNAL, Place
from tests.chaos.hooks import CALLS, die_at
from tests.chaos.workers import Hook, Worker, fork_function
from tests.pipeline.toy import NUMBERS, SQUARES, TOY

NUMBERS_IN_ALL = 12
SECONDS = 0.02
"""That a shard takes."""
MOST_A_RUN = 20


def kill_toys(place: Place, kills: int) -> None:
    """Kill workers of the toy pipeline, one to three side by side, at random instants or at a call that writes."""
    done = 0
    while done < kills:
        folder = Path(tempfile.mkdtemp(prefix="toy-", dir=place.folder))
        seen: dict[Path, tuple[int, int]] = {}
        for number in range(MOST_A_RUN):
            workers = [_start(place, folder, f"{number}-{one}") for one in range(place.drawn.choice([1, 1, 2, 3]))]
            for worker in workers:
                worker.let_work(place.drawn.uniform(0.0, 0.25))
                worker.send(place.drawn.choice([signal.SIGKILL, signal.SIGTERM]))
            codes = [_ended(place, worker, (0, 3, 143, *BY_SIGNAL)) for worker in workers]
            killed = sum(code in (143, *BY_SIGNAL) for code in codes)
            done += killed
            place.tally.kills += killed
            place.tally.ways.update({"toy pipeline": killed})
            _check(place, folder, seen)
            if 0 in codes or done >= kills:
                break
        _ended(place, _start(place, folder, "last", calm=True), (0,))
        _check(place, folder, seen)
        numbers, squares = (sorted(Tables(folder / "toy").read(table)["n"].to_pylist()) for table in (NUMBERS, SQUARES))
        if numbers != list(range(NUMBERS_IN_ALL)) or squares != [number**2 for number in numbers]:
            place.tally.lost += 1
            place.tally.problems.append(f"{folder}: the rows are {numbers} and {squares}")
        elif left := list(folder.rglob(".*.tmp-*")):
            place.tally.problems.append(f"{folder}: left over: {left[:3]}")
        else:
            shutil.rmtree(folder)


def _start(place: Place, folder: Path, name: str, *, calm: bool = False) -> Worker:
    hook: Hook | None = None
    values: tuple[object, ...] = ()
    if not calm and place.drawn.random() < 0.5:
        hook = die_at
        values = (place.drawn.choice(CALLS), place.drawn.randint(1, 25), place.drawn.random() < 0.5, 0.0)
    return fork_function(folder / f"{name}.log", work, (str(folder),), hook, values)


def work(folder: str) -> None:
    """A worker; it ends with the exit code of `run`."""
    import sys

    from tests.pipeline.execution.sharing_worker import main

    sys.argv = ["worker", folder, str(NUMBERS_IN_ALL), str(SECONDS), "--rows-may-fail"]
    main()


def _ended(place: Place, worker: Worker, allowed: tuple[int, ...]) -> int:
    code = worker.wait()
    if code not in allowed or "Traceback (most recent" in worker.printed():
        place.tally.problems.append(f"{worker.log}: exit code {code} of the toy pipeline:\n{worker.printed()}")
        print(place.tally.problems[-1], flush=True)  # noqa: T201
    return code


def _check(place: Place, folder: Path, seen: dict[Path, tuple[int, int]]) -> None:
    """Count the finished shards that are lost or were made again."""
    tables = Tables(folder / "toy")
    now = {}
    for stage in TOY.values():
        for last in tables.files(stage.writes[-1]):
            for path in (tables.file(table, last.stem) for table in stage.writes):
                now[path] = (path.stat().st_ino, path.stat().st_mtime_ns)
    lost = [path for path, stamp in seen.items() if now.get(path) != stamp]
    place.tally.lost += len(lost)
    place.tally.problems += [f"{path} was finished, and then lost or made again" for path in lost]
    seen.update(now)
