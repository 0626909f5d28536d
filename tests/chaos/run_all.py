"""`make test-chaos`: runs that are killed, spoilt and starved at random, each compared row by row with one that nobody disturbed.

The last line is JSON with what was done: kills, corruptions, full disks, double runs, and what was paid twice or lost. KILLS=30 makes
all of it smaller in proportion, SEED=1 draws other moments.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.damage import cut_caches, damage_other_files, damage_tables
from tests.chaos.disks import fill_disks, lock_disks
from tests.chaos.disturbed_run import Place, Tally
from tests.chaos.killing import LATENCY, kill_launches, kill_workers
from tests.chaos.quick_run import make_material, write_run
from tests.chaos.reduced_demo import kill_reduced_demo
from tests.chaos.sharing import misbehave, run_twice
from tests.chaos.toy_pipeline import kill_toys
from tests.chaos.workers import fork
from tests.integration.made_up_model import reply
from tests.pipeline.llm.endpoint.loopback import Loopback

KILLS = 300
MOST_SECONDS = 6.0
"""That the moments of kills are drawn from, where a busy machine takes longer for a run."""
SHARES: dict[str, tuple[Callable[[Place, int], None], float]] = {
    "the toy pipeline": (kill_toys, 0.63),
    "the plain command": (kill_workers, 0.2),
    "clocks that jump": (lambda place, kills: kill_workers(place, kills, clocks=True), 0.04),
    "LAUNCH=local": (kill_launches, 0.045),
    "the reduced demo": (kill_reduced_demo, 0.07),
    "tables damaged": (damage_tables, 0.1),
    "other files damaged": (damage_other_files, 0.03),
    "caches cut": (cut_caches, 0.02),
    "disks full": (fill_disks, 0.03),
    "disks read-only": (lock_disks, 0.01),
    "double runs": (run_twice, 0.02),
    "faulty endpoints": (misbehave, 0.0134),
}
"""What is done, and how often for each kill that is asked for."""


def main() -> None:
    """Exit code 1 where something was lost or paid twice, or an end was not clear."""
    kills, seed = int(os.environ.get("KILLS") or KILLS), int(os.environ.get("SEED") or 0)
    os.environ["PYTHONWARNINGS"] = (
        "ignore::UserWarning"  # of what killed processes leave to their tracker, after the last line
    )
    chosen = sys.argv[1:] or list(SHARES)
    tally, began = Tally(), time.monotonic()
    base = Path(tempfile.mkdtemp(prefix="chaos-"))
    place = _place(base, tally, seed)
    say(f"an undisturbed run takes {place.seconds:.1f} s, or more")
    for name in chosen:
        disturb, share = SHARES[name]
        disturb(place, max(1, round(share * kills)))
        say(f"{name}: {tally.kills} kills so far, {len(tally.problems)} problems, {time.monotonic() - began:.0f} s")
    say(f"by kind: {dict(tally.ways)}")
    say(f"kills by the last stage with a finished shard: {dict(tally.stages)}")
    if tally.problems:
        say(f"{len(tally.problems)} problems; what they are about is kept in {base}")
    else:
        shutil.rmtree(base)
    say(json.dumps(tally.counts()))
    raise SystemExit(bool(tally.problems or tally.paid_twice or tally.lost))


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def _place(base: Path, tally: Tally, seed: int) -> Place:
    """With a run that nobody disturbs: once to have everything in memory, and once to take its time."""
    material = make_material(base / "material")
    with Loopback(reply, latency=LATENCY) as server:
        took = MOST_SECONDS
        for name in ("first", "calm"):
            file = write_run(base / name, material, server.base_url)
            began = time.monotonic()
            worker = fork(base / f"{name}.log", "run", "--config", str(file))
            if worker.wait():
                raise SystemExit(f"the undisturbed run fails:\n{worker.printed()}")
            took = min(took, time.monotonic() - began)
    return Place(base, material, file, took, tally, random.Random(seed), server.port)


if __name__ == "__main__":
    main()
