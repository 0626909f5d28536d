"""From the settings of a sparse coder to its files, whatever their format."""

from pathlib import Path

from pipeline.config import SparseCoder
from pipeline.errors import UserError
from pipeline.subjects.saes import gemma_scope, saelens, sparsify
from pipeline.subjects.saes.coder import Coder
from pipeline.subjects.saes.gemma_scope import open_gemma_scope
from pipeline.subjects.saes.saelens import open_saelens
from pipeline.subjects.saes.sparsify import open_sparsify
from pipeline.subjects.saes.tensors import PICKLED

WEIGHTS = {"saelens": saelens.NAME, "sparsify": sparsify.NAME, "gemma_scope": gemma_scope.NAME}
"""The file by which each format is known."""


def open_coder(settings: SparseCoder, layer: int) -> Coder:
    """A sparse coder by its settings; reads its configuration and the header of its weights.

    Raises:
        UserError: no such files, or files that cannot be used.
    """
    path = coder_path(settings, layer)
    form = _format(path) if settings.format == "auto" else settings.format
    if form == "gemma_scope":
        return open_gemma_scope(path)
    if path.is_file():
        path = path.parent
    return open_saelens(path) if form == "saelens" else open_sparsify(path)


def coder_path(settings: SparseCoder, layer: int) -> Path:
    """The folder or file of a layer's coder."""
    path = Path(settings.path.replace("{layer}", str(layer))).expanduser()
    if not path.exists():
        raise UserError(
            f"subject.saes: {path} does not exist; download the coder and name its folder, or correct `path`"
        )
    return path


def coder_files(settings: SparseCoder, layer: int) -> tuple[Path, ...]:
    """All files that the latents of a layer's coder depend on."""
    return open_coder(settings, layer).files


def _format(path: Path) -> str:
    if path.is_file():
        names = {path.name}
        if path.suffix == ".npz":
            return "gemma_scope"
    else:
        names = {file.name for file in path.iterdir()}
    for form, weights in WEIGHTS.items():
        if weights in names:
            return form
    pickled = sorted(name for name in names if Path(name).suffix in PICKLED)
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
