"""Sentence embeddings that black boxes share: those of a run are asked about the same texts, one box after the other."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.subjects.embedder import Embedder, Vectors

LISTS = 4
"""Lists of texts whose vectors are kept, the latest ones: up to AT_ONCE texts each, which take 12 MB for all-MiniLM."""
LEAST = 1024
"""Texts of a list that is kept. Shorter ones, such as texts that are asked again as a check, are embedded every time."""


def vectors_of(embedder: Embedder, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """(N, D) embeddings; a long list is embedded once for all boxes that are asked about it in turn."""
    found = latest(embedder, tuple(texts)) if len(texts) >= LEAST else embedder.encode(texts, many=True)
    return found.astype(np.float64)


@lru_cache(LISTS)
def latest(embedder: Embedder, texts: tuple[str, ...]) -> Vectors:
    """(N, D), which nobody may write to."""
    return embedder.encode(texts, many=True)
