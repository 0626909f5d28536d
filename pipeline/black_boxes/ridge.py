"""Ridge weights on features of a text, as encoding models of fMRI voxels have them (Singh et al. 2023)."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.black_boxes.hidden import HiddenStates, on_texts, refuse_other
from pipeline.errors import UserError
from pipeline.subjects.embedder import AT_ONCE, DEFAULT, load_embedder
from pipeline.subjects.kinds.callables import at_once
from pipeline.subjects.kinds.matrix_file import read_matrix, read_numbers
from pipeline.subjects.text_functions import pooled

Values = npt.NDArray[np.float64]


def ridge(
    path: str,
    key: str | None = None,
    intercept: str | None = None,
    features: str = "embedding",
    embedder: str = DEFAULT,
    model: str | None = None,
    layer: int | None = None,
    mean: str | None = None,
    scale: str | None = None,
    device: str = "auto",
) -> Callable[[list[str]], Values]:
    """f(x) = W ((g(x) - mean) / scale) + intercept, with one unit, or voxel, for each row of W.

    Args:
        path: a .safetensors, .npz or .npy file with W, (units, features).
        key: its name in the file; not needed where the file holds one array.
        intercept: name of the intercepts, (units,), in the same file; 0 unless given.
        features: g, the sentence "embedding", or "hidden": the mean over the tokens of the hidden states after a layer.
        embedder: of the embedding.
        model: of the hidden states, as subject.model.
        layer: of the hidden states, counted from 0.
        mean: name of what is taken from the features first, (features,); 0 unless given.
        scale: name of what they are divided by then, (features,); 1 unless given.
        device: where the embedder or the model runs.

    Raises:
        UserError: the file, the embedder or the model is not there, or they do not fit together.
    """
    g, width = _features(features, embedder, model, layer, device)
    weights = read_matrix("ridge", path, key, width, "the features")
    offset = read_numbers("ridge", path, intercept, len(weights))
    middle = read_numbers("ridge", path, mean, width)
    spread = np.ones(width) if scale is None else read_numbers("ridge", path, scale, width)
    if not spread.all():
        raise UserError(
            f"ridge: feature {int(np.argmin(np.abs(spread)))} has scale 0 in {path!r}; leave it out of the matrix"
        )

    def voxels(texts: list[str]) -> Values:
        return ((g(texts) - middle) / spread) @ weights.T + offset

    return at_once(voxels, AT_ONCE) if features == "embedding" else voxels


def _features(
    features: str, embedder: str, model: str | None, layer: int | None, device: str
) -> tuple[Callable[[list[str]], Values], int]:
    """The function g from N texts to (N, D) features, and D."""
    refuse_other("features", features, ("embedding", "hidden"))
    if features == "embedding":
        embed = load_embedder(embedder, device)
        return lambda texts: embed.shared(texts).astype(np.float64), embed.width
    if model is None or layer is None:
        raise UserError(f'features = "hidden" needs a model and a layer, but model = {model!r} and layer = {layer!r}')
    states = HiddenStates(model, layer, device)
    return on_texts(states, states.width, lambda hidden, counted: pooled(hidden, counted, "mean")), states.width
