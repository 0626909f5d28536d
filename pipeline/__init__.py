"""The machinery that any stage uses: configuration, shards, fingerprints, models, corpora."""
