"""Files that cannot be used are refused with what is wrong and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.pipeline.subjects.saes.layouts import (
    Array,
    D,
    U,
    draw,
    gemma_scope,
    saelens_6,
    save,
    site_of,
    sparsify,
    write_json,
)

W = draw()
BASE = {"W_enc": W.w_enc, "b_enc": W.b_enc, "W_dec": W.w_dec, "b_dec": W.b_dec}


def without(name: str) -> dict[str, Array]:
    return {key: value for key, value in BASE.items() if key != name}


def pickled(folder: Path) -> Path:
    folder.mkdir()
    torch.save({"encoder.weight": torch.zeros(2, 2)}, folder / "ae.pt")
    return folder


def broken(folder: Path) -> Path:
    sparsify(folder, W)
    (folder / "sae.safetensors").write_bytes(b"not tensors")
    return folder


def truncated(folder: Path) -> Path:
    gemma_scope(folder, W)
    data = (folder / "params.npz").read_bytes()
    (folder / "params.npz").write_bytes(data[: len(data) // 2])
    return folder


def objects(folder: Path) -> Path:
    folder.mkdir()
    np.savez(folder / "params.npz", W_enc=np.asarray([{"a": 1}], object))
    return folder


def no_settings(folder: Path) -> Path:
    save(folder / "sae_weights.safetensors", BASE)
    return folder


def list_of_settings(folder: Path) -> Path:
    no_settings(folder)
    (folder / "cfg.json").write_text(json.dumps([1]))
    return folder


def parent(folder: Path) -> Path:
    sparsify(folder / "layers.3.mlp", W)
    return folder


def no_weights(folder: Path) -> Path:
    write_json(folder / "cfg.json", {"d_in": D, "d_sae": U})
    return folder


def lone_threshold(folder: Path) -> Path:
    gemma_scope(folder, W)
    np.savez(folder / "params.npz", W_enc=W.w_enc, W_dec=W.w_dec, b_enc=W.b_enc, b_dec=W.b_dec)
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "nothing there": (lambda f: f / "nowhere", ["nowhere does not exist", "path"]),
    "pickle": (pickled, ["ae.pt, a pickle", "safetensors"]),
    "no coder": (no_weights, ["is no sparse coder", "sae_weights.safetensors, sae.safetensors, params.npz"]),
    "folder of folders": (parent, ["layers.3.mlp", "{layer}"]),
    "broken file": (broken, ["sae.safetensors cannot be read", "download it again"]),
    "cut file": (truncated, ["params.npz cannot be read"]),
    "objects": (objects, ["params.npz cannot be read", "Python objects"]),
    "no cfg.json": (no_settings, ["cfg.json does not exist"]),
    "cfg.json is a list": (list_of_settings, ["holds a list", "an object"]),
    "missing tensor": (lambda f: saelens_6(f, "standard", without("b_enc")), ["lacks b_enc", "it holds W_dec, W_enc, b_dec"]),
    "no threshold": (lambda f: saelens_6(f, "jumprelu", BASE), ["lacks threshold"]),
    "no threshold in npz": (lone_threshold, ["lacks threshold"]),
    "wrong shape": (lambda f: saelens_6(f, "standard", BASE, d_sae=U + 1), ["W_enc has the shape [6, 24], expected [6, 25]"]),
    "wrong shape of sparsify": (lambda f: sparsify(f, W, expansion_factor=5), ["encoder.weight", "[24, 6]", "[30, 6]"]),
    "no d_in": (lambda f: saelens_6(f, "standard", BASE, d_in=None), ["d_in = None", "whole number"]),
    "architecture": (lambda f: saelens_6(f, "temporal", BASE), ["'temporal' is not known", "standard, gated, jumprelu"]),
    "function": (lambda f: saelens_6(f, "standard", BASE, activation_fn="tanh-relu"), ["'tanh-relu' is not known"]),
    "no k": (lambda f: saelens_6(f, "topk", BASE), ["k = None"]),
    "k too large": (lambda f: saelens_6(f, "topk", BASE, k=U + 1), [f"k = {U + 1} is more than d_sae = {U}"]),
    "k of sparsify": (lambda f: sparsify(f, W, k=U + 1), [f"k = {U + 1} does not fit {U} latents"]),
    "groups": (lambda f: sparsify(f, W, activation="groupmax", k=5), ["k = 5 does not fit 24 latents"]),
    "activation of sparsify": (lambda f: sparsify(f, W, activation="relu"), ["activation = 'relu'", "topk and groupmax"]),
    "signed": (lambda f: sparsify(f, W, signed=True), ["signed latents cannot be recorded"]),
    "normalisation": (
        lambda f: saelens_6(f, "standard", BASE, normalize_activations="covariance_whitening"),
        ["'covariance_whitening' is not known", "fold it"],
    ),
    "unknown factor": (
        lambda f: saelens_6(f, "standard", BASE, normalize_activations="expected_average_only_in"),
        ["the factor is in no file", "activation_scaler.json", '{"scaling_factor": NUMBER}'],
    ),
    "hook_z": (
        lambda f: saelens_6(f, "standard", BASE, hook_name="blocks.3.attn.hook_z"),
        ["'blocks.3.attn.hook_z'", "cannot be recorded", "residual stream"],
    ),
    "one head": (
        lambda f: saelens_6(f, "standard", BASE, metadata={"hook_name": "blocks.3.hook_q_input", "hook_head_index": 2}),
        ["one head", "hook_q_input"],
    ),
    "between attention and the MLP": (
        lambda f: saelens_6(f, "standard", BASE, hook_name="blocks.3.hook_resid_mid"),
        ["reads 'blocks.3.hook_resid_mid'", "none of residual, ", 'reads = "..."'],
    ),
    "after a norm that is not there": (
        lambda f: saelens_6(f, "transcoder", BASE, d_out=D, hook_name="blocks.3.ln2.hook_normalized"),
        ["reads 'blocks.3.ln2.hook_normalized'", "this layer has no such norm"],
    ),
    "embedding": (
        lambda f: gemma_scope(f / "gemma-scope-2b-pt-res" / "embedding" / "width_4k", W), ["encodes the embedding"]
    ),
    "heads of Gemma Scope": (
        lambda f: gemma_scope(f / "gemma-scope-2b-pt-att" / "layer_3" / "width_16k", W), ["the heads' own values"]
    ),
    "other layer": (
        lambda f: saelens_6(f, "standard", BASE, hook_name="blocks.5.hook_resid_post"),
        ["belong to layer 5", "write layers.5.sae"],
    ),
    "other layer of sparsify": (lambda f: sparsify(f / "layers.5.mlp", W), ["belong to layer 5 (layers.5.mlp)"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_used_are_told(name: str, tmp_path: Path) -> None:
    write, says = REFUSED[name]
    with pytest.raises(UserError) as caught:
        site_of(write(tmp_path / "coder"))
    for part in says:
        assert part in str(caught.value)


def test_a_module_that_the_layer_lacks_is_told(tmp_path: Path) -> None:
    folder = saelens_6(tmp_path, "standard", BASE, hook_name="transformer.h.3.attn")
    with pytest.raises(
        UserError, match=r"reads what 'transformer\.h\.3\.attn' gives, and this layer has no 'attn'.*reads ="
    ):
        site_of(folder, lacks="attn")


def test_a_pickled_file_is_told(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "sae.pt")
    with pytest.raises(UserError, match="a pickle"):
        site_of(tmp_path / "sae.pt")
    with pytest.raises(UserError, match="a pickle"):
        site_of(tmp_path / "sae.pt", format="gemma_scope")


def test_a_coder_of_another_model_is_told(tmp_path: Path) -> None:
    folder = sparsify(tmp_path, W)
    with pytest.raises(UserError, match=r"encodes 6 dimensions, and residual of this model has 768"):
        site_of(folder, hidden_size=768)
