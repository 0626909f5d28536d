"""The machinery that any stage uses: configuration, shards, fingerprints, models, corpora."""

import os

# This counts only where it is set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: spinning ones take the cores from others

from pipeline.results.run_folder import RunFolder, open_run

__all__ = ["RunFolder", "open_run"]
