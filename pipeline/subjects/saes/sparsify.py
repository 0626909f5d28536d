"""The format of EleutherAI's sparsify: a folder for each hookpoint with cfg.json and sae.safetensors.

The file holds encoder.weight (U, D), encoder.bias, W_dec (U, D') and b_dec. The folder (or, with several seeds, the one
above it) has the name of the module whose output is encoded; a transcoder encodes its input.
"""

from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.subjects.saes.coder import Coder, positive, read_json
from pipeline.subjects.saes.encoder import Encoder
from pipeline.subjects.saes.formats import WEIGHTS
from pipeline.subjects.saes.places import sparsify_place
from pipeline.subjects.saes.tensors import TensorFile

NAME = WEIGHTS["sparsify"]


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
    file = TensorFile(folder / NAME)
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
