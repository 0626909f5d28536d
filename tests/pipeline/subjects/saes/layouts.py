"""Small sparse coders in the files that each training program writes, and their latents by hand."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.config import SparseCoder
from pipeline.subjects.activation_sources import HookPoint
from pipeline.subjects.activations import SparseActivations
from pipeline.subjects.architecture import Layer
from pipeline.subjects.saes.latents import hook_point

D, U, K = 6, 24, 4
Array = npt.NDArray[np.float64]
PARTS = {"mlp": "down_proj", "self_attn": "o_proj", "attn": "c_proj", "attention": "dense"}
"""The modules of a layer and what is in each of them."""


@dataclass(frozen=True)
class Weights:
    """The tensors of a coder as float64."""

    w_enc: Array
    b_enc: Array
    w_dec: Array
    b_dec: Array
    threshold: Array
    b_mag: Array
    r_mag: Array


def draw(seed: int = 0, inputs: int = D, outputs: int = D) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights(
        w_enc=rng.standard_normal((inputs, U)),
        b_enc=0.3 * rng.standard_normal(U),
        w_dec=rng.standard_normal((U, outputs)),
        b_dec=0.5 * rng.standard_normal(outputs),
        threshold=np.abs(rng.standard_normal(U)) + 0.5,
        b_mag=0.3 * rng.standard_normal(U),
        r_mag=0.2 * rng.standard_normal(U),
    )


def save(path: Path, tensors: dict[str, Array], dtype: torch.dtype = torch.float32) -> None:
    """A safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.tensor(value).to(dtype).contiguous() for name, value in tensors.items()}, path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


def saelens_6(folder: Path, architecture: str, tensors: dict[str, Array], **settings: Any) -> Path:
    """As SAELens 6 writes an autoencoder: what belongs to the model in `metadata`."""
    metadata = {
        "sae_lens_version": "6.54.12", "sae_lens_training_version": "6.54.12", "model_name": "gpt2", "hook_head_index": None,
        "hook_name": settings.pop("hook_name", "blocks.3.hook_resid_post"), "prepend_bos": True, "context_size": 128,
        "model_class_name": "HookedTransformer", "dataset_path": "texts", "exclude_special_tokens": False,
    }  # fmt: skip
    config = {
        "d_in": D, "d_sae": U, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "reshape_activations": "none", "metadata": metadata, "architecture": architecture,
    }  # fmt: skip
    write_json(folder / "cfg.json", config | settings)
    save(folder / "sae_weights.safetensors", tensors)
    return folder


def saelens_3(folder: Path, architecture: str, tensors: dict[str, Array], **settings: Any) -> Path:
    """As SAELens 3 to 5 write it: one flat object."""
    config = {
        "architecture": architecture, "d_in": D, "d_sae": U, "activation_fn_str": "relu", "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False, "context_size": 128, "model_name": "gpt2", "hook_layer": 3,
        "hook_name": "blocks.3.hook_resid_post", "hook_head_index": None, "prepend_bos": True, "dataset_path": "texts",
        "dataset_trust_remote_code": True, "normalize_activations": "none", "dtype": "torch.float32", "device": "cpu",
        "sae_lens_training_version": "3.20.0", "activation_fn_kwargs": {},
    }  # fmt: skip
    write_json(folder / "cfg.json", config | settings)
    save(folder / "sae_weights.safetensors", tensors)
    return folder


def sparsify(folder: Path, weights: Weights, **settings: Any) -> Path:
    """As EleutherAI's sparsify writes it."""
    config = {
        "activation": "topk", "expansion_factor": U // D, "normalize_decoder": True, "num_latents": 0, "k": K,
        "multi_topk": False, "skip_connection": False, "transcode": False, "d_in": D,
    }  # fmt: skip
    write_json(folder / "cfg.json", config | settings)
    tensors = {"encoder.weight": weights.w_enc.T, "encoder.bias": weights.b_enc}
    if settings.get("skip_connection"):
        tensors["W_skip"] = np.zeros((weights.b_dec.size, D))
    save(folder / "sae.safetensors", tensors | {"W_dec": weights.w_dec, "b_dec": weights.b_dec})
    return folder


def gemma_scope(folder: Path, weights: Weights) -> Path:
    """As the repositories of Gemma Scope hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        "W_enc": weights.w_enc, "W_dec": weights.w_dec, "b_enc": weights.b_enc, "b_dec": weights.b_dec,
        "threshold": weights.threshold,
    }  # fmt: skip
    np.savez(folder / "params.npz", **{name: value.astype(np.float32) for name, value in tensors.items()})  # type: ignore[arg-type]
    return folder


def top_k(before: Array, k: int) -> Array:
    """ReLU of the k largest numbers of each row, zeros elsewhere."""
    found = np.zeros_like(before)
    for row, values in enumerate(before):
        for unit in np.argsort(-values)[:k]:
            found[row, unit] = max(values[unit], 0.0)
    return found


def site_of(
    path: Path, layer: int = 3, hidden_size: int = D, norm: nn.Module | None = None, lacks: str = "", **settings: Any
) -> HookPoint:
    """The site of a coder on a layer that is never run, with D neurons and without the part that it `lacks`."""
    coder = SparseCoder(path=str(path), **settings)
    block = nn.Module()
    for part, projection in PARTS.items():
        block.add_module(part, None if part == lacks else nn.ModuleDict({projection: nn.Linear(D, D)}))
    block.add_module("post_attention_layernorm", norm)
    config: Any = SimpleNamespace(get_text_config=lambda: SimpleNamespace(hidden_size=hidden_size))
    site = hook_point(Layer(f"layers.{layer}.sae:test", layer, block, config), coder)
    site.module.path = next(path for path, module in block.named_modules() if module is site.module)
    return site


def reads(site: HookPoint) -> str:
    """What is hooked, such as `output of mlp`."""
    return f"{site.side} of {site.module.path or 'layer'}"


def dense(found: SparseActivations) -> Array:
    """(N, U) latents with their zeros; checks the order of the triples."""
    order = found.positions * found.shape[2] + found.units
    assert (order.diff() > 0).all(), "by position, then by unit, none twice"
    array = np.zeros((found.shape[0] * found.shape[1], found.shape[2]))
    array[found.positions.numpy(), found.units.numpy()] = found.values.double().numpy()
    return array


def stream(seed: int = 1, inputs: int = D) -> torch.Tensor:
    """(B, T, D) activations of a model."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((5, 7, inputs)).astype(np.float32) * 2)
