"""A worker of the tests of claims: takes a claim and holds it until it is ended. Prints what it got, a line each."""

import sys
import time
from pathlib import Path

from pipeline.storage.claim_files import ClaimFolder
from pipeline.storage.claims import Claims


def main() -> None:
    """Arguments: folder, lease, how many seconds to hold."""
    root, lease, seconds = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    with Claims(ClaimFolder(root), lease) as claims:
        claim = claims.take("count", "part-00000")
        print("taken" if claim else "refused", flush=True)  # noqa: T201
        if claim:
            time.sleep(seconds)
            print("held" if claims.holds(claim) else "lost", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
