"""Random directions on the embedding of a text: functions without a concept, to compare others with."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.subjects.embedder import AT_ONCE, DEFAULT, load_embedder
from pipeline.subjects.kinds.callables import at_once

Values = npt.NDArray[np.float64]


def random_directions(
    units: int, seed: int = 0, embedder: str = DEFAULT, device: str = "auto"
) -> Callable[[list[str]], Values]:
    """f(x) = W e(x), with one row of W for each unit: a normally distributed vector, at length 1.

    A unit is the same however many there are.

    Args:
        units: how many directions.
        seed: draws them.
        embedder: a hub id, a folder or package:NAME.
        device: where it runs; auto, cpu, cuda, cuda:N or mps.

    Raises:
        UserError: no such embedder or device.
    """
    embed = load_embedder(embedder, device)
    weights = np.random.default_rng(seed).standard_normal((units, embed.width))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)

    def projections(texts: list[str]) -> Values:
        vectors = embed.shared(texts).astype(np.float64)  # (N, D)
        # Unit by unit, as the last bits of a product of matrices depend on how many rows there are.
        return np.stack([(vectors * direction).sum(axis=1) for direction in weights], axis=1)

    return at_once(projections, AT_ONCE)
