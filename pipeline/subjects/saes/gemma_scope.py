"""The format of Gemma Scope: params.npz with W_enc (D, U), b_enc, W_dec (U, D), b_dec and threshold; JumpReLU, no settings.

Lieberum et al. 2024. What it reads is told by the path alone.
"""

from pathlib import Path

import torch

from pipeline.subjects.saes.coder import Coder
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.formats import WEIGHTS
from pipeline.subjects.saes.places import gemma_scope_place
from pipeline.subjects.saes.tensors import TensorFile

NAME = WEIGHTS["gemma_scope"]


def open_gemma_scope(path: Path) -> Coder:
    """The coder of a params.npz, or of the folder that holds it.

    Raises:
        UserError: tensors that are missing or do not fit together.
    """
    file = TensorFile(path / NAME if path.is_dir() else path)
    file.require({"W_enc": (-1, -1), "W_dec": (-1, -1)})
    inputs, width = file.shapes["W_enc"]
    outputs = file.shapes["W_dec"][1]
    file.require({"W_dec": (width, outputs), "b_enc": (width,), "threshold": (width,), "b_dec": (outputs,)})
    place = gemma_scope_place(file.path)

    def load(device: torch.device) -> Encoder:
        threshold = file.load("threshold", device).clamp(min=0)
        return Encoder(file.load("W_enc", device), file.load("b_enc", device), "threshold", threshold)

    return Coder(
        weights=file.path,
        inputs=inputs,
        width=width,
        place=place,
        reconstructs=place is None or place.reads != "mlp_in",
        load=load,
        reads=lambda: file.load("W_enc").T,
        writes=lambda: file.load("W_dec"),
    )
