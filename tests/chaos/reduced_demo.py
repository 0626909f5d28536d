"""The reduced demo, with a real language model on real text, killed at random instants."""

import signal
import time
from pathlib import Path

from pipeline.storage.tables import is_pruned
from tests.chaos.disturbed_run import BY_SIGNAL, Place
from tests.chaos.workers import fork
from tests.cluster.compare import differing
from tests.integration.kills import published
from tests.integration.reduced import write_run_file


def kill_reduced_demo(place: Place, kills: int) -> None:
    """Kill it so often, by SIGKILL or SIGTERM, and compare its rows with those of a run that is left alone."""
    tally, drawn = place.tally, place.drawn
    calm = write_run_file(place.folder / "reduced-calm", explain_shard=1)
    began = time.monotonic()
    worker = fork(place.folder / "reduced-calm.log", "run", "--config", str(calm))
    if worker.wait():
        tally.problems.append(f"the reduced demo fails:\n{worker.printed()}")
        return
    seconds, done, number = time.monotonic() - began, 0, 0
    while done < kills:
        number += 1
        folder = place.folder / f"reduced-{number}"
        file, seen = write_run_file(folder, explain_shard=1), dict[Path, tuple[int, int]]()
        code = -1
        while code != 0:
            worker = fork(folder / "log", "run", "--config", str(file))
            if done < kills:
                worker.let_work(drawn.uniform(0.05, 0.3) * seconds)
                worker.send(drawn.choice([signal.SIGKILL, signal.SIGTERM]))
            code = worker.wait()
            if code not in (0, 143, *BY_SIGNAL) or "Traceback" in worker.printed():
                tally.problems.append(f"exit code {code} of the reduced demo:\n{worker.printed()}")
                return
            done += code != 0
            tally.kills += code != 0
            tally.ways["reduced demo"] += code != 0
            now = published(folder / "reduced")
            gone = [
                path for path, stamp in seen.items() if now.get(path) != stamp and not (path in now and is_pruned(path))
            ]
            tally.lost += len(gone)
            tally.problems += [f"{path} was finished, and then lost or made again" for path in gone]
            seen = now
        if found := differing(calm.parent / "reduced", folder / "reduced"):
            tally.lost += len(found)
            tally.problems.append(f"rows of the reduced demo differ: {found}")
