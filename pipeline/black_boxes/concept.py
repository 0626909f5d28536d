"""How near a text is to a concept in the space of a sentence embedder: the synthetic modules of Singh et al. 2023."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.subjects.embedder import AT_ONCE, DEFAULT, load_embedder
from pipeline.subjects.kinds.callables import at_once

Values = npt.NDArray[np.float64]


def concept(
    concepts: str | Sequence[str], embedder: str = DEFAULT, device: str = "auto"
) -> Callable[[list[str]], Values]:
    """f(x) = -|| e(x) - e(concept) ||, with one unit for each concept; from -2 to 0, as embeddings have length 1.

    Args:
        concepts: words or phrases.
        embedder: a hub id, a folder or package:NAME.
        device: where it runs; auto, cpu, cuda, cuda:N or mps.

    Raises:
        UserError: no concept, or no such embedder or device.
    """
    listed = [concepts] if isinstance(concepts, str) else list(concepts)
    if not listed or not all(isinstance(one, str) and one.strip() for one in listed):
        raise UserError(f'concepts = {concepts!r}; expected words or phrases, such as ["the sea"]')
    embed = load_embedder(embedder, device)
    centres = embed.encode(listed, many=True).astype(np.float64)  # (U, D)

    def distances(texts: list[str]) -> Values:
        vectors = embed.shared(texts).astype(np.float64)  # (N, D)
        squares = [((vectors - centre) ** 2).sum(axis=1) for centre in centres]
        return -np.sqrt(np.stack(squares, axis=1))

    return at_once(distances, AT_ONCE)
