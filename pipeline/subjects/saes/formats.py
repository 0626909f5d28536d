"""The formats of sparse coders, known by the names of their files, and what a path tells of a coder where its files do not.

Imports no torch, as fingerprints are worked out for `status` and `query` too.
"""

from pathlib import Path

from pipeline.config import SparseCoder
from pipeline.errors import UserError
from pipeline.subjects.saes.places import Place, gemma_scope_place, sparsify_place

WEIGHTS = {"saelens": "sae_weights.safetensors", "sparsify": "sae.safetensors", "gemma_scope": "params.npz"}
"""The file by which each format is known."""
PICKLED = {".pt", ".pth", ".bin", ".pkl", ".ckpt"}


def coder_path(settings: SparseCoder, layer: int) -> Path:
    """The folder or file of a layer's coder."""
    path = Path(settings.path.replace("{layer}", str(layer))).expanduser()
    if not path.exists():
        raise UserError(
            f"subject.saes: {path} does not exist; download the coder and name its folder, or correct `path`"
        )
    return path


def coder_format(settings: SparseCoder, path: Path) -> str:
    """The format of a coder.

    Raises:
        UserError: the folder holds no coder.
    """
    form = _known(settings, path)
    if form is not None:
        return form
    pickled = sorted(name for name in _names(path) if Path(name).suffix in PICKLED)
    if pickled:
        raise UserError(
            f"subject.saes: {path} holds {pickled[0]}, a pickle, which can run code; "
            "have the program that made it save the coder as safetensors"
        )
    layers = sorted(file.parent.name for weights in WEIGHTS.values() for file in path.glob(f"*/{weights}"))
    hint = f"; name one of its folders, such as {layers[0]}, or write {{layer}} for the number" if layers else ""
    raise UserError(
        f"subject.saes: {path} is no sparse coder (looked for {', '.join(WEIGHTS.values())}){hint or '; correct `path`'}"
    )


def place_by_path(settings: SparseCoder, layer: int) -> Place | None:
    """Where a coder reads, as far as its path alone tells; None where the run file or the files tell it.

    A transcoder is taken for an autoencoder here: which of them it is stands in its files.
    """
    path = coder_path(settings, layer)
    form = _known(settings, path) if settings.reads == "auto" else None
    if form == "gemma_scope":
        return gemma_scope_place(path if path.is_file() else path / WEIGHTS[form])
    if form == "sparsify":
        return sparsify_place(path.parent if path.is_file() else path)
    return None


def _known(settings: SparseCoder, path: Path) -> str | None:
    if settings.format != "auto":
        return settings.format
    if path.suffix == ".npz" and path.is_file():
        return "gemma_scope"
    names = _names(path)
    return next((form for form, weights in WEIGHTS.items() if weights in names), None)


def _names(path: Path) -> set[str]:
    return {path.name} if path.is_file() else {file.name for file in path.iterdir()}
