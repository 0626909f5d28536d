"""Tests and benchmarks."""

import pipeline  # noqa: F401  (settings of torch, which have to be made before it is imported)
