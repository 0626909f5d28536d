"""The format of SAELens: cfg.json with the settings and sae_weights.safetensors.

Up to version 5 the settings are flat, and a TopK coder is a `standard` one with activation_fn_str = "topk"; from 6 on
`metadata` holds what belongs to the model. The encoder's tensors are W_enc (D, U), b_enc, b_dec, with a threshold for
JumpReLU and BatchTopK, and b_gate, b_mag and r_mag in place of b_enc for gated coders (Rajamanoharan et al. 2024).
"""

from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.subjects.saes.coder import Coder, Shape, TensorFile, positive, read_json
from pipeline.subjects.saes.encoder import Encoder, Normalisation
from pipeline.subjects.saes.places import WEIGHTS, Place, place_of, refuse_hidden

NAME = WEIGHTS["saelens"]
SCALER = "activation_scaler.json"
TRANSCODERS = {
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
KINDS = {
    "standard": "relu",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
    **TRANSCODERS,
}
THRESHOLDS = {"jumprelu": ("threshold", "log_threshold"), "batchtopk": ("threshold", "topk_threshold")}


def open_saelens(folder: Path) -> Coder:
    """The coder of a folder.

    Raises:
        UserError: settings that are not known, tensors that are missing or do not fit.
    """
    settings = folder / "cfg.json"
    config = read_json(settings)
    config |= config.get("metadata") or {}
    architecture = config.get("architecture", "standard")
    kind = _kind(config, settings)
    inputs, width = positive(config, "d_in", settings), positive(config, "d_sae", settings)
    normalisation, scale = _normalisation(config, settings)
    file = TensorFile(folder / NAME)
    file.require(_expected(kind, architecture in TRANSCODERS, inputs, width, file, config))
    centred = architecture not in TRANSCODERS and config.get("apply_b_dec_to_input", True)

    rescaled = kind in ("topk", "batchtopk") and config.get("rescale_acts_by_decoder_norm")

    def load(device: torch.device) -> Encoder:
        return Encoder(
            weight=file.load("W_enc", device),
            bias=file.load("b_gate" if kind == "gated" else "b_enc", device),
            selection="gated" if kind == "gated" else "topk" if kind == "topk" else "threshold",
            threshold=_threshold(kind, file, device),
            k=_k(config, settings, width) if kind == "topk" else 0,
            gain=file.load("r_mag", device).exp() if kind == "gated" else None,
            magnitude_bias=file.load("b_mag", device) if kind == "gated" else None,
            centre=file.load("b_dec", device) if centred else None,
            normalisation=normalisation,
            scale=scale,
            rescale=_decoder_norms(file, device) if rescaled else None,
        )

    if kind == "topk":
        _k(config, settings, width)
    return Coder(
        weights=file.path,
        inputs=inputs,
        width=width,
        place=_place(config, architecture in TRANSCODERS),
        reconstructs=architecture not in TRANSCODERS,
        load=load,
        reads=lambda: file.load("W_enc").T,
        writes=lambda: _decoder(file),
    )


def _kind(config: dict[str, Any], settings: Path) -> str:
    architecture = config.get("architecture", "standard")
    kind = KINDS.get(architecture)
    if kind is None:
        raise UserError(
            f"{settings}: architecture = {architecture!r} is not known; choose a coder among {', '.join(KINDS)}"
        )
    function = config.get("activation_fn", config.get("activation_fn_str", "relu")) or "relu"
    if function == "topk" and kind in ("relu", "topk"):
        return "topk"
    if function != "relu":
        raise UserError(
            f"{settings}: the activation function {function!r} is not known; choose a coder with relu or topk"
        )
    return kind


def _k(config: dict[str, Any], settings: Path, width: int) -> int:
    k = positive({**config, **(config.get("activation_fn_kwargs") or {})}, "k", settings)
    if k > width:
        raise UserError(f"{settings}: k = {k} is more than d_sae = {width}; correct the file")
    return k


def _normalisation(config: dict[str, Any], settings: Path) -> tuple[Normalisation, float]:
    """How the input is normalised, and the factor of it."""
    name = config.get("normalize_activations")
    if name in (None, False, "none"):
        return "none", 1.0
    if name == "layer_norm":
        return "layer_norm", 1.0
    if name == "constant_norm_rescale":
        return "constant_norm_rescale", 1.0
    if name in (True, "expected_average_only_in"):
        return "none", _scaling_factor(settings.parent / SCALER)
    raise UserError(
        f"{settings}: normalize_activations = {name!r} is not known; fold it into the weights and write none"
    )


def _scaling_factor(path: Path) -> float:
    if not path.exists():
        raise UserError(
            f"{path.parent / 'cfg.json'}: normalize_activations = 'expected_average_only_in', and the factor is in no file; "
            f'write it to {path} as {{"scaling_factor": NUMBER}}: sqrt(d_in) over the mean length of the activations, '
            "or 1 where it is folded into the weights"
        )
    factor = read_json(path).get("scaling_factor")
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not factor > 0:
        raise UserError(f"{path}: scaling_factor = {factor!r}, expected a number above 0; correct the file")
    return float(factor)


def _expected(
    kind: str, transcoder: bool, inputs: int, width: int, file: TensorFile, config: dict[str, Any]
) -> dict[str, Shape]:
    outputs = int(config.get("d_out") or -1) if transcoder else inputs
    shapes: dict[str, Shape] = {"W_enc": (inputs, width), "W_dec": (width, outputs), "b_dec": (outputs,)}
    shapes |= dict.fromkeys(("b_gate", "b_mag", "r_mag") if kind == "gated" else ("b_enc",), (width,))
    if kind in THRESHOLDS:
        name = _threshold_name(kind, file)
        shapes[name] = () if file.shapes.get(name) == () else (width,)
    return shapes


def _threshold_name(kind: str, file: TensorFile) -> str:
    return next((name for name in THRESHOLDS[kind] if name in file.shapes), "threshold")


def _threshold(kind: str, file: TensorFile, device: torch.device) -> torch.Tensor | None:
    """Thresholds, of which the activation function ReLU makes those below 0 to 0."""
    if kind == "relu":
        return torch.zeros((), device=device)
    if kind not in THRESHOLDS:
        return None
    name = _threshold_name(kind, file)
    found = file.load(name, device)
    return (found.exp() if name == "log_threshold" else found).clamp(min=0)


def _decoder_norms(file: TensorFile, device: torch.device) -> torch.Tensor:
    return file.load("W_dec", device).norm(dim=-1)


def _decoder(file: TensorFile) -> torch.Tensor:
    """Decoder vectors; a factor learned in finetuning belongs to the decoder alone."""
    for name in ("finetuning_scaling_factor", "scaling_factor"):
        if name in file.shapes:
            return file.load("W_dec") * file.load(name)[:, None]
    return file.load("W_dec")


def _place(config: dict[str, Any], transcoder: bool) -> Place | None:
    name = config.get("hook_name") or config.get("hook_point") or config.get("hf_hook_name")
    if not name:
        return None
    refuse_hidden(str(name))
    if config.get("hook_head_index") is not None or config.get("hook_point_head_index") is not None:
        raise UserError(f"the sparse coder reads one head at {name!r}, which cannot be recorded; choose another coder")
    return place_of(str(name), transcoder)
