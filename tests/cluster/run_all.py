"""`make test-cluster`: the reduced demo over real engines with kills, beside the local run; the last line is JSON with the counts."""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.cluster import over_ray, over_slurm
from tests.integration.reduced import command, write_run_file

ENGINES = {"slurm": over_slurm.run, "ray": over_ray.run}


def main() -> None:
    """Exit code 1 where rows differ or something is left over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=list(ENGINES), help="slurm, ray; both without it")
    chosen: list[str] = parser.parse_args().engines
    with tempfile.TemporaryDirectory(prefix="local-") as name:
        file = write_run_file(Path(name), explain_shard=1)
        subprocess.run(command("run", "--config", str(file)), check=True, capture_output=True)
        found: dict[str, Any] = {}
        for engine in chosen:
            print(f"{engine} ...", flush=True)  # noqa: T201
            found[engine] = ENGINES[engine](Path(name) / "reduced")
            if why := found[engine].get("skipped"):
                print(f"{engine} is skipped: {why}", flush=True)  # noqa: T201
    print(json.dumps(found))  # noqa: T201
    raise SystemExit(any(counts.get("differing") or counts.get("left_claims") for counts in found.values()))


if __name__ == "__main__":
    main()
