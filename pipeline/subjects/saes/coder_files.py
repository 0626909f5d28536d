"""From the settings of a sparse coder to the coder, whatever the format of its files; the formats of Gemma Scope and sparsify.

Gemma Scope (Lieberum et al. 2024): params.npz with W_enc (D, U), b_enc, W_dec (U, D), b_dec and threshold; JumpReLU, no settings.
What it reads is told by the path alone.

EleutherAI's sparsify: a folder for each hook point with cfg.json and sae.safetensors, which holds encoder.weight (U, D), encoder.bias,
W_dec (U, D') and b_dec. The folder (or, with several seeds, the one above it) has the name of the module whose output is
encoded; a transcoder encodes its input.
"""

from pathlib import Path
from typing import Any

import torch

from pipeline.config import SparseCoder
from pipeline.errors import UserError
from pipeline.subjects.saes.coder import Coder, TensorFile, positive, read_json
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.places import WEIGHTS, coder_format, coder_path, gemma_scope_place, sparsify_place
from pipeline.subjects.saes.saelens import open_saelens


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


def open_gemma_scope(path: Path) -> Coder:
    """The coder of a params.npz, or of the folder that holds it.

    Raises:
        UserError: tensors that are missing or do not fit together.
    """
    file = TensorFile(path / WEIGHTS["gemma_scope"] if path.is_dir() else path)
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


def open_sparsify(folder: Path) -> Coder:
    """The coder of a folder.

    Raises:
        UserError: settings that are not known, tensors that are missing or do not fit.
    """
    settings = folder / "cfg.json"
    config = read_json(settings)
    inputs = positive(config, "d_in", settings)
    width = int(config.get("num_latents") or 0) or inputs * positive(config, "expansion_factor", settings)
    k = positive(config, "k", settings)
    transcoder = bool(config.get("transcode", False))
    activation = _activation(config, settings)
    if k > width or (activation == "groupmax" and width % k):
        raise UserError(f"{settings}: k = {k} does not fit {width} latents; correct the file")
    file = TensorFile(folder / WEIGHTS["sparsify"])
    writes = -1 if transcoder else inputs
    file.require(
        {"encoder.weight": (width, inputs), "encoder.bias": (width,), "W_dec": (width, writes), "b_dec": (-1,)}
    )

    def load(device: torch.device) -> Encoder:
        return Encoder(
            file.load("encoder.weight", device).T.contiguous(),
            file.load("encoder.bias", device),
            "groupmax" if activation == "groupmax" else "topk",
            k=k,
            centre=None if transcoder else file.load("b_dec", device),
        )

    return Coder(
        weights=file.path,
        inputs=inputs,
        width=width,
        place=sparsify_place(folder, transcoder),
        reconstructs=not transcoder,
        load=load,
        reads=lambda: file.load("encoder.weight"),
        writes=lambda: file.load("W_dec"),
    )


def _activation(config: dict[str, Any], settings: Path) -> str:
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise UserError(f"{settings}: activation = {activation!r}, known are topk and groupmax; choose another coder")
    if config.get("signed"):
        raise UserError(f"{settings}: signed latents cannot be recorded; choose a coder that was trained without them")
    return str(activation)
