"""The format of Gemma Scope: params.npz with W_enc (D, U), b_enc, W_dec (U, D), b_dec and threshold; JumpReLU, no settings.

Lieberum et al. 2024. What it reads is told by the path alone, such as gemma-scope-2b-pt-res/layer_20/.../params.npz. The
transcoders read what the norm in front of the MLP gives before its gain.
"""

import re
from pathlib import Path

import torch

from pipeline.errors import UserError
from pipeline.subjects.saes.coder import Coder
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.places import Place
from pipeline.subjects.saes.tensors import TensorFile

NAME = "params.npz"
SITES = {"res": "residual", "mlp": "mlp_out", "transcoders": "mlp_in"}
_SITE = re.compile(r"gemma-scope-[^/]+-(res|mlp|att|transcoders)(?:-|/|$)")
_LAYER = re.compile(r"(?:^|/)layer_(\d+)(?:/|$)")


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

    def load(device: torch.device) -> Encoder:
        threshold = file.load("threshold", device).clamp(min=0)
        return Encoder(file.load("W_enc", device), file.load("b_enc", device), "threshold", threshold)

    return Coder(
        files=(file.path,),
        inputs=inputs,
        width=width,
        place=_place(file.path),
        load=load,
        reads=lambda: file.load("W_enc").T,
        writes=lambda: file.load("W_dec"),
    )


def _place(path: Path) -> Place | None:
    text = path.resolve().as_posix()
    if "/embedding/" in text:
        raise UserError(f"{path} encodes the embedding, which cannot be recorded; choose the coder of a layer")
    site, layer = _SITE.search(text), _LAYER.search(text)
    if site is not None and site[1] == "att":
        raise UserError(
            f"{path} encodes the heads' own values, which cannot be recorded; choose res, mlp or transcoders"
        )
    if site is None and layer is None:
        return None
    name = site[1] if site else "res"
    return Place(int(layer[1]) if layer else None, SITES[name], name, before_gain=name == "transcoders")
