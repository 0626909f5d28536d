"""From the settings of a sparse coder to its files, whatever their format."""

from pipeline.config import SparseCoder
from pipeline.subjects.saes.coder import Coder
from pipeline.subjects.saes.formats import coder_format, coder_path
from pipeline.subjects.saes.gemma_scope import open_gemma_scope
from pipeline.subjects.saes.saelens import open_saelens
from pipeline.subjects.saes.sparsify import open_sparsify


def open_coder(settings: SparseCoder, layer: int) -> Coder:
    """A sparse coder by its settings; reads its configuration and the header of its weights.

    Raises:
        UserError: no such files, or files that cannot be used.
    """
    path = coder_path(settings, layer)
    form = coder_format(settings, path)
    if form == "gemma_scope":
        return open_gemma_scope(path)
    if path.is_file():
        path = path.parent
    return open_saelens(path) if form == "saelens" else open_sparsify(path)
