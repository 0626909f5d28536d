"""A linear head, or directions, on the embedding of a text: probes, classifiers, axes of meaning."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.subjects.embedder import AT_ONCE, DEFAULT, load_embedder
from pipeline.subjects.kinds.callables import at_once
from pipeline.subjects.kinds.matrix_file import read_matrix, read_numbers

Values = npt.NDArray[np.float64]


def direction(
    path: str,
    key: str | None = None,
    bias: str | None = None,
    normalise: bool = False,
    embedder: str = DEFAULT,
    device: str = "auto",
) -> Callable[[list[str]], Values]:
    """f(x) = W e(x) + b, with one unit for each row of W.

    Args:
        path: a .safetensors, .npz or .npy file with W, (units, dimensions of the embedding), or a single vector.
        key: its name in the file; not needed where the file holds one array.
        bias: name of b, (units,), in the same file; 0 unless given.
        normalise: divide each row by its length, so that f is a projection.
        embedder: a hub id, a folder or package:NAME.
        device: where it runs.

    Raises:
        UserError: the file or the embedder is not there, or they do not fit together.
    """
    embed = load_embedder(embedder, device)
    weights = read_matrix("direction", path, key, embed.width, "the embedding", normalise)
    offset = read_numbers("direction", path, bias, len(weights))

    def heads(texts: list[str]) -> Values:
        return embed.shared(texts).astype(np.float64) @ weights.T + offset

    return at_once(heads, AT_ONCE)
