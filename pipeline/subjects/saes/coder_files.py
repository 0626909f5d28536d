"""From the settings of a sparse coder to the coder, whatever the format of its files.

SAELens: cfg.json and sae_weights.safetensors. Up to version 5 the settings are flat, and a TopK coder is a `standard` one with
activation_fn_str = "topk"; from 6 on `metadata` holds what belongs to the model. The encoder's tensors are W_enc (D, U), b_enc, b_dec,
with a threshold for JumpReLU and BatchTopK, and b_gate, b_mag and r_mag in place of b_enc for gated coders (Rajamanoharan et al. 2024).

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
from pipeline.subjects.saes.coder import Coder, Shape, TensorFile, positive, read_json
from pipeline.subjects.saes.encoder import Encoder, Normalisation
from pipeline.subjects.saes.places import (
    WEIGHTS,
    Place,
    coder_format,
    coder_path,
    gemma_scope_place,
    place_of,
    sparsify_place,
)

SCALER = "activation_scaler.json"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "batchtopk", "matryoshka_batchtopk", *TRANSCODERS)
"""Names of SAELens."""
THRESHOLDS = {"jumprelu": ("threshold", "log_threshold"), "batchtopk": ("threshold", "topk_threshold")}
"""Names of thresholds in the files of SAELens."""


def open_coder(settings: SparseCoder, layer: int) -> Coder:
    """A sparse coder by its settings; reads its configuration and the header of its weights.

    Raises:
        UserError: no such files, settings that are not known, or tensors that are missing or do not fit together.
    """
    path = coder_path(settings, layer)
    form = coder_format(settings, path)
    if form == "gemma_scope":
        return _open_gemma_scope(path)
    folder = path.parent if path.is_file() else path
    return _open_saelens(folder) if form == "saelens" else _open_sparsify(folder)


def _open_gemma_scope(path: Path) -> Coder:
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


def _open_sparsify(folder: Path) -> Coder:
    settings = folder / "cfg.json"
    config = read_json(settings)
    inputs = positive(config, "d_in", settings)
    width = int(config.get("num_latents") or 0) or inputs * positive(config, "expansion_factor", settings)
    k, activation = positive(config, "k", settings), config.get("activation", "topk")
    transcoder = bool(config.get("transcode", False))
    if activation not in ("topk", "groupmax"):
        raise UserError(f"{settings}: activation = {activation!r}, known are topk and groupmax; choose another coder")
    if config.get("signed"):
        raise UserError(f"{settings}: signed latents cannot be recorded; choose a coder that was trained without them")
    if k > width or (activation == "groupmax" and width % k):
        raise UserError(f"{settings}: k = {k} does not fit {width} latents; correct the file")
    file = TensorFile(folder / WEIGHTS["sparsify"])
    writes = -1 if transcoder else inputs
    file.require(
        {"encoder.weight": (width, inputs), "encoder.bias": (width,), "W_dec": (width, writes), "b_dec": (-1,)}
    )

    def load(device: torch.device) -> Encoder:
        weight, bias = file.load("encoder.weight", device).T.contiguous(), file.load("encoder.bias", device)
        return Encoder(weight, bias, activation, k=k, centre=None if transcoder else file.load("b_dec", device))

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


def _open_saelens(folder: Path) -> Coder:
    settings = folder / "cfg.json"
    config = read_json(settings)
    config |= config.get("metadata") or {}
    transcoder = config.get("architecture", "standard") in TRANSCODERS
    kind = _kind(config, settings)
    inputs, width = positive(config, "d_in", settings), positive(config, "d_sae", settings)
    normalisation, scale = _normalisation(config, settings)
    k = positive({**config, **(config.get("activation_fn_kwargs") or {})}, "k", settings) if kind == "topk" else 0
    if k > width:
        raise UserError(f"{settings}: k = {k} is more than d_sae = {width}; correct the file")
    file = TensorFile(folder / WEIGHTS["saelens"])
    threshold = next((name for name in THRESHOLDS.get(kind, ()) if name in file.shapes), "threshold")
    outputs = int(config.get("d_out") or -1) if transcoder else inputs
    shapes: dict[str, Shape] = {"W_enc": (inputs, width), "W_dec": (width, outputs), "b_dec": (outputs,)}
    shapes |= dict.fromkeys(("b_gate", "b_mag", "r_mag") if kind == "gated" else ("b_enc",), (width,))
    if kind in THRESHOLDS:
        shapes[threshold] = () if file.shapes.get(threshold) == () else (width,)
    file.require(shapes)
    centred = not transcoder and config.get("apply_b_dec_to_input", True)
    rescaled = kind in ("topk", "batchtopk") and config.get("rescale_acts_by_decoder_norm")

    def thresholds(device: torch.device) -> torch.Tensor | None:
        """The activation function ReLU makes those below 0 to 0."""
        if kind not in THRESHOLDS:
            return torch.zeros((), device=device) if kind == "relu" else None
        found = file.load(threshold, device)
        return (found.exp() if threshold == "log_threshold" else found).clamp(min=0)

    def load(device: torch.device) -> Encoder:
        return Encoder(
            weight=file.load("W_enc", device),
            bias=file.load("b_gate" if kind == "gated" else "b_enc", device),
            selection="gated" if kind == "gated" else "topk" if kind == "topk" else "threshold",
            threshold=thresholds(device),
            k=k,
            gain=file.load("r_mag", device).exp() if kind == "gated" else None,
            magnitude_bias=file.load("b_mag", device) if kind == "gated" else None,
            centre=file.load("b_dec", device) if centred else None,
            normalisation=normalisation,
            scale=scale,
            rescale=file.load("W_dec", device).norm(dim=-1) if rescaled else None,
        )

    def writes() -> torch.Tensor:
        """A factor learned in finetuning belongs to the decoder alone."""
        factors = [name for name in ("finetuning_scaling_factor", "scaling_factor") if name in file.shapes]
        return file.load("W_dec") * file.load(factors[0])[:, None] if factors else file.load("W_dec")

    return Coder(
        weights=file.path,
        inputs=inputs,
        width=width,
        place=_saelens_place(config, transcoder),
        reconstructs=not transcoder,
        load=load,
        reads=lambda: file.load("W_enc").T,
        writes=writes,
    )


def _kind(config: dict[str, Any], settings: Path) -> str:
    """How latents are selected: relu, gated, jumprelu, topk or batchtopk."""
    architecture = config.get("architecture", "standard")
    kind = next((kind for kind in ("gated", "jumprelu", "batchtopk", "topk") if kind in architecture), "relu")
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"{settings}: architecture = {architecture!r} is not known; choose a coder among {', '.join(ARCHITECTURES)}"
        )
    function = config.get("activation_fn", config.get("activation_fn_str", "relu")) or "relu"
    if function == "topk" and kind in ("relu", "topk"):
        return "topk"
    if function != "relu":
        raise UserError(
            f"{settings}: the activation function {function!r} is not known; choose a coder with relu or topk"
        )
    return kind


def _normalisation(config: dict[str, Any], settings: Path) -> tuple[Normalisation, float]:
    """How the input is normalised, and the factor of it."""
    name = config.get("normalize_activations")
    if name in (None, False, "none"):
        return "none", 1.0
    if name in ("layer_norm", "constant_norm_rescale"):
        return name, 1.0
    if name not in (True, "expected_average_only_in"):
        raise UserError(
            f"{settings}: normalize_activations = {name!r} is not known; fold it into the weights and write none"
        )
    path = settings.parent / SCALER
    if not path.exists():
        raise UserError(
            f"{settings}: normalize_activations = 'expected_average_only_in', and the factor is in no file; "
            f'write it to {path} as {{"scaling_factor": NUMBER}}: sqrt(d_in) over the mean length of the activations, '
            "or 1 where it is folded into the weights"
        )
    factor = read_json(path).get("scaling_factor")
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 0:
        raise UserError(f"{path}: scaling_factor = {factor!r}, expected a number above 0; correct the file")
    return "none", float(factor)


def _saelens_place(config: dict[str, Any], transcoder: bool) -> Place | None:
    name = str(config.get("hook_name") or config.get("hook_point") or config.get("hf_hook_name") or "")
    heads = [config.get(key) for key in ("hook_head_index", "hook_point_head_index")]
    if name.endswith(("hook_z", "hook_q", "hook_k", "hook_v")) or (name and heads != [None, None]):
        raise UserError(
            f"the sparse coder reads one head, or the heads' own values, at {name!r}, which cannot be recorded; choose one that "
            "reads the residual stream, attn_out, mlp_in, mlp_out or mlp"
        )
    return place_of(name, transcoder) if name else None
