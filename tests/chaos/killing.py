"""Workers that are killed: alone, side by side, under clocks that differ, and with their launcher."""

import os
import random
import signal
import time
from pathlib import Path

from tests.chaos.disturbed_run import BY_SIGNAL, STOPPED, DisturbedRun, Place
from tests.chaos.hooks import CALLS, die_at, live_by_another_clock
from tests.chaos.workers import Worker

LATENCY = 0.01
"""Seconds until a reply, so that kills meet requests in flight."""
MOST_A_RUN = 8
"""Kills of one run, after which it is finished and compared."""
SIDE_BY_SIDE = (1, 1, 1, 2, 3)
"""Workers at a run at a time; one of these."""


def kill_workers(place: Place, kills: int, *, clocks: bool = False) -> None:
    """Kill so many workers of the plain command, each at a random instant or at a call that writes.

    Args:
        clocks: have each worker live by a clock of its own that jumps, and set the times of files ahead and back.
    """
    done = 0
    while done < kills:
        with place.server(latency=LATENCY) as server:
            run, own = DisturbedRun(place, server), 0
            for _ in range(4 * MOST_A_RUN):
                if own >= MOST_A_RUN or done + own >= kills:
                    break
                killed, finished = _disturb(run, place.drawn, clocks=clocks)
                own += killed
                if clocks:
                    _set_times(run.root, place.drawn)
                    run.look()
                if finished:
                    break
            done += own
            run.finish()


def _disturb(run: DisturbedRun, drawn: random.Random, *, clocks: bool) -> tuple[int, bool]:
    """Start workers and end each; gives how many were killed, and whether one came to the end."""
    workers = [_start(run, drawn, clocks=clocks) for _ in range(drawn.choice(SIDE_BY_SIDE))]
    for worker in workers:
        worker.let_work(drawn.uniform(0.0, 0.45) * run.place.seconds)
        number = drawn.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        worker.send(number)
    codes = [run.ended(worker, (0, 3, 143, *BY_SIGNAL)) for worker in workers]
    hard, soft = codes.count(-signal.SIGKILL), codes.count(143) + codes.count(-signal.SIGTERM)
    run.tally.kills += hard + soft
    run.tally.ways.update({"SIGKILL": hard, "SIGTERM": soft, "side by side": (hard + soft) * (len(codes) > 1)})
    run.tally.stages[run.stage()] += hard + soft
    run.check(killed=hard)
    return hard + soft, 0 in codes


def _start(run: DisturbedRun, drawn: random.Random, *, clocks: bool) -> Worker:
    if clocks:
        return run.start(hook=live_by_another_clock, values=(drawn.uniform(-400, 400), drawn.randrange(1000)))
    if drawn.random() < 0.5:
        return run.start()
    call, number = drawn.choice(CALLS), int(1 + drawn.expovariate(1 / 30))
    delay = drawn.choice([0.0, 0.0, drawn.uniform(0.0, 0.02)])
    run.tally.ways[f"at {call}"] += 1
    return run.start(hook=die_at, values=(call, number, drawn.random() < 0.5, delay))


def _set_times(root: Path, drawn: random.Random) -> None:
    """Have some files be from long ago, and some from a time to come."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and drawn.random() < 0.3:
            moment = time.time() + 86400 * drawn.uniform(-400, 400)
            os.utime(path, (moment, moment))


def kill_launches(place: Place, kills: int) -> None:
    """Kill launchers of LAUNCH=local and their workers, as many processes in all."""
    done = 0
    while done < kills:
        with place.server(latency=LATENCY) as server:
            run = DisturbedRun(place, server)
            for _ in range(4):
                killed, finished = _disturb_launch(run, place.drawn)
                done += killed
                if finished or done >= kills:
                    break
            run.finish()


def _disturb_launch(run: DisturbedRun, drawn: random.Random) -> tuple[int, bool]:
    launcher = run.start("run", "--launch", "local")
    if not _until_published(run, launcher):
        return 0, run.ended(launcher, STOPPED) == 0
    workers = _children(launcher.pid)
    hard = soft = 0
    for pid in drawn.sample(workers, k=min(len(workers), drawn.randint(1, 2))):
        time.sleep(drawn.uniform(0.0, 0.3))
        hard += _kill(pid)
    time.sleep(drawn.uniform(0.0, 0.8))
    number = drawn.choice([signal.SIGKILL, signal.SIGTERM])
    if launcher.send(number):
        hard, soft = hard + (number == signal.SIGKILL), soft + (number == signal.SIGTERM)
    code = run.ended(launcher, (*STOPPED, *BY_SIGNAL))
    end = time.monotonic() + 60
    while any(map(_is_there, workers)) and time.monotonic() < end:  # they notice that their launcher is no more
        time.sleep(0.02)
    if left := [pid for pid in workers if _is_there(pid)]:
        run.problem(f"{len(left)} workers go on without their launcher")
    run.tally.kills += hard + soft
    run.tally.ways.update({"LAUNCH=local": hard + soft})
    run.tally.stages[run.stage()] += hard + soft
    run.check(killed=hard)
    return hard + soft, code == 0


def _until_published(run: DisturbedRun, launcher: Worker) -> bool:
    """Wait until its workers have finished another shard; False where it ends before."""
    before = sum(1 for _ in run.root.rglob("*.parquet"))
    while launcher.code() is None:
        if sum(1 for _ in run.root.rglob("*.parquet")) > before:
            return True
        time.sleep(0.05)
    return False


def _children(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="ascii").split()]


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _is_there(pid: int) -> bool:
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
            not in "ZX"
        )
    except OSError:
        return False
