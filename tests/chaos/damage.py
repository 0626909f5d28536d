"""Files that a disk has spoilt: cut off, zeroed, or flipped in one bit. `verify` names them, `repair` and a run make them again."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from stages import STAGES
from tests.chaos.disturbed_run import DisturbedRun, Place, copied
from tests.chaos.killing import LATENCY
from tests.chaos.workers import fork

FILES_AT_A_TIME = 4


def _truncate(path: Path, drawn: random.Random) -> None:
    os.truncate(path, drawn.randrange(path.stat().st_size))


def _zero(path: Path, drawn: random.Random) -> None:
    """A stretch of the file, or all of it."""
    content = bytearray(path.read_bytes())
    start = drawn.choice([0, drawn.randrange(len(content))])
    length = drawn.choice([len(content) - start, min(512, len(content) - start)])
    content[start : start + length] = bytes(length)
    path.write_bytes(content)


def _flip(path: Path, drawn: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    path.write_bytes(content)


WAYS: dict[str, Callable[[Path, random.Random], None]] = {"truncated": _truncate, "zeroed": _zero, "one bit": _flip}


def damage_tables(place: Place, files: int) -> None:
    """Damage so many files of tables, some at a time; each is named, and made again with the rows that it had."""
    done = 0
    while done < files:
        with place.server() as server:
            run = copied(place, server)
            tables = {table.path for stage in STAGES.values() for table in stage.writes}
            paths = sorted(path for table in tables for path in (run.root / table).glob("*.parquet"))
            chosen = place.drawn.sample(paths, k=min(FILES_AT_A_TIME, files - done))
            told = [f"{path} {_damage(run, path, place.drawn)}" for path in chosen]
            done += len(chosen)
            named = _verified(run)
            run.tally.ways.update({"damage that changes no row": sum(path not in named for path in chosen)})
            run.ended(fork(run.log(), "repair", str(run.root)), (0,))
            code = run.ended(run.start(), (0,) if len(named) == len(chosen) else (0, 2))
            if code == 0:
                run.compare()
            else:
                run.tally.ways["damage that a run refuses"] += 1
            if run.asked:
                run.tally.paid_twice += run.asked
                run.problem(f"{run.asked} replies were asked for again after {told}")
            if _verified(run) and code == 0:
                run.problem(f"verify finds something after repair and a run; damaged were {told}")
            run.discard()


def _verified(run: DisturbedRun) -> set[Path]:
    """The files that `verify` names."""
    worker = fork(run.log(), "verify", str(run.root))
    code = run.ended(worker, (0, 1))
    named = {Path(line) for line in worker.printed().splitlines() if line.startswith(f"{run.root}/")}
    if code == 1 and not named:
        run.problem("verify names no file", worker.printed())
    return named


def damage_other_files(place: Place, files: int) -> None:
    """Damage one file at a time that is no table: the run gives its rows all the same, or names the file and goes on once it is back."""
    for _ in range(files):
        with place.server() as server:
            run = copied(place, server)
            paths = sorted(path for path in run.root.rglob("*") if path.is_file() and path.suffix != ".parquet")
            path = place.drawn.choice(paths)
            kept = path.read_bytes()
            told = f"{path.relative_to(run.root)} {_damage(run, path, place.drawn)}"
            worker = run.start()
            if run.ended(worker, (0, 2)) == 2:
                if path.name not in worker.printed() and "the plan says" not in worker.printed():
                    run.problem(f"the message does not name what was damaged: {told}", worker.printed())
                path.write_bytes(kept)
                run.ended(run.start(), (0,))
            if run.asked:
                run.tally.paid_twice += run.asked
                run.problem(f"{run.asked} replies were asked for again after {told}")
            run.compare()
            run.discard()


def cut_caches(place: Place, times: int) -> None:
    """Kill a run in the middle of its requests and spoil its kept replies; what is lost of them is asked for again, no more."""
    for number in range(times):
        with place.server(latency=LATENCY) as server:
            run = DisturbedRun(place, server)
            worker = run.start()
            wanted = place.drawn.randint(20, 70)
            while worker.code() is None and server.requests < wanted:
                time.sleep(0.002)
            run.tally.kills += worker.send(signal.SIGKILL)
            run.ended(worker, (0, -signal.SIGKILL))
            run.check(killed=1)
            files = [
                path
                for path in sorted((run.root / "_replies").glob("*.sqlite*"))
                if path.stat().st_size and path.suffix != ".sqlite-shm"
            ]
            path = place.drawn.choice(files)
            if number % 3 == 2:
                _flip(path, place.drawn)
            else:
                os.truncate(path, path.stat().st_size // 2)
            run.tally.corruptions += 1
            run.tally.ways["cache cut or flipped"] += 1
            run.finish(paid=False)


def _damage(run: DisturbedRun, path: Path, drawn: random.Random) -> str:
    way = drawn.choice(list(WAYS))
    before = path.read_bytes()
    while path.read_bytes() == before:
        WAYS[way](path, drawn)
    run.tally.corruptions += 1
    run.tally.ways[way] += 1
    return way
