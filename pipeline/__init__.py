"""The machinery that any stage uses: configuration, shards, fingerprints, models, corpora."""

import os

# Torch's threads sleep between operations and do not spin, so that they leave the cores to the recorder. It counts only where
# it is said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
