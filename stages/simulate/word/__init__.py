"""The word simulator, which asks no language model: see `word_simulator`."""
