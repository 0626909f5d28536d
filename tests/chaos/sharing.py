"""The same command twice at once, and endpoints that misbehave while workers are killed."""

import signal
import time

from tests.chaos.disturbed_run import BY_SIGNAL, DisturbedRun, Place, copied
from tests.chaos.killing import LATENCY
from tests.integration.reduced import all_rows

REDONE = ("explain", "simulate", "score", "judge", "synthesize", "score.sasc")
TRANSPORT = (
    "429",
    "429:20ms",
    "408",
    "500",
    "503",
    "refuse",
    "reset",
    "drop",
    "silent",
    "empty",
    "truncated",
    "garbage",
    "wrong_model",
)
"""Faults after which the same request is sent again, so that rows stay as they were."""
CONTENT = ("refusal", "blank", "wrong_length", "out_of_range", "nan")
"""Faults of the reply itself: another attempt is another request, with another reply."""


def run_twice(place: Place, times: int) -> None:
    """Start the same command twice at once, now and then with --redo: no shard and no reply is made twice."""
    for number in range(times):
        with place.server(latency=LATENCY) as server:
            again = number % 3 == 2
            run = copied(place, server) if again else DisturbedRun(place, server)
            arguments = ("run", "--redo", place.drawn.choice(REDONE)) if again else ("run",)
            workers = []
            for _ in range(2):
                workers.append(run.start(*arguments))
                time.sleep(place.drawn.choice([0.0, 0.0, place.drawn.uniform(0.0, 0.5)]))
            for worker in workers:
                run.ended(worker, (0, 2, 3) if again else (0,))
            run.tally.double_runs += 1
            run.check()
            run.finish()


def misbehave(place: Place, times: int) -> None:
    """Have every tenth request meet a fault, in all ways, and kill workers meanwhile."""
    for number in range(times):
        ways = CONTENT if number % 2 else TRANSPORT
        script = [place.drawn.choice(ways) if request % 10 == 9 else "ok" for request in range(600)]
        with place.server(latency=LATENCY, script=script) as server:
            run = DisturbedRun(place, server, more="timeout = 1.0, retries = 4, max_failure_share = 1.0")
            for _ in range(3):
                worker = run.start()
                worker.let_work(place.drawn.uniform(0.2, 0.8) * place.seconds)
                how = place.drawn.choice([signal.SIGKILL, signal.SIGTERM])
                run.tally.kills += worker.send(how)
                run.ended(worker, (0, 1, 143, *BY_SIGNAL))
                run.check(paid=False)
            code = run.ended(run.start(), (0, 1))
            run.tally.ways["faulty endpoint"] += 1
            _check_rows(run, code)
            server.script.clear()
            if ways is TRANSPORT:
                if code == 1:
                    run.ended(run.start("run", "--redo", "explain"), (0,))
                    run.ended(run.start("run", "--redo", "explain.sasc"), (0,))
                run.compare()
            run.discard()


def _check_rows(run: DisturbedRun, code: int) -> None:
    """Each row is there with a number or with a named failure."""
    failed = 0
    for name, rows in all_rows(run.root).items():
        if {"status", "error"} <= set(rows.column_names):
            bad = [
                error
                for status, error in zip(rows["status"].to_pylist(), rows["error"].to_pylist(), strict=True)
                if status == "failed"
            ]
            failed += len(bad)
            if any(not error or len(error) < 5 for error in bad):
                run.problem(f"failed rows of {name} do not say why")
    if code != int(failed > 0):
        run.problem(f"exit code {code} with {failed} failed rows")
