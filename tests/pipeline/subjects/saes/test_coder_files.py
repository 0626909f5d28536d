"""Latents of coders in every format equal those worked out by hand from the weights, and the files tell the place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.subjects.saes import encoder
from tests.pipeline.subjects.saes.layouts import (
    Array,
    D,
    K,
    U,
    Weights,
    dense,
    draw,
    gemma_scope,
    saelens_3,
    saelens_6,
    save,
    site_of,
    sparsify,
    stream,
    top_k,
    write_json,
)

W = draw()
BASE = {"W_enc": W.w_enc, "b_enc": W.b_enc, "W_dec": W.w_dec, "b_dec": W.b_dec}
GATED = {
    "W_enc": W.w_enc, "W_dec": W.w_dec, "b_dec": W.b_dec, "b_gate": W.b_enc, "b_mag": W.b_mag, "r_mag": W.r_mag,
}  # fmt: skip
WIDE = draw(outputs=D + 2)
ACROSS = {"W_enc": WIDE.w_enc, "b_enc": WIDE.b_enc, "W_dec": WIDE.w_dec, "b_dec": WIDE.b_dec}
NO_CENTRE = {"apply_b_dec_to_input": False}


def before(x: Array, weights: Weights = W, centred: bool = True) -> Array:
    """Pre-activations of (N, D)."""
    return (x - weights.b_dec * centred) @ weights.w_enc + weights.b_enc


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def jump(values: Array, threshold: Array | float) -> Array:
    return relu(values) * (values > threshold)


def gated(x: Array) -> Array:
    centred = x - W.b_dec
    magnitude = relu(centred @ (W.w_enc * np.exp(W.r_mag)) + W.b_mag)
    return (centred @ W.w_enc + W.b_enc > 0) * magnitude


def layer_norm(x: Array) -> Array:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / (centred.std(axis=1, ddof=1, keepdims=True) + 1e-5)


def unit_length(x: Array) -> Array:
    return x * np.sqrt(D) / np.linalg.norm(x, axis=1, keepdims=True)


def by_decoder(x: Array) -> Array:
    return before(x) * np.linalg.norm(W.w_dec, axis=1)


def group_max(x: Array) -> Array:
    values = relu(before(x))
    groups = values.reshape(len(x), K, U // K)
    return np.where(groups == groups.max(axis=2, keepdims=True), groups, 0).reshape(values.shape)


def scaled(folder: Path) -> Path:
    write_json(folder / "activation_scaler.json", {"scaling_factor": 0.25})
    return saelens_6(folder, "standard", BASE, normalize_activations="expected_average_only_in")


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Array], Array]]] = {
    "saelens 6 standard": (lambda f: saelens_6(f, "standard", BASE), lambda x: relu(before(x))),
    "saelens 6 without centring": (
        lambda f: saelens_6(f, "standard", BASE, **NO_CENTRE), lambda x: relu(before(x, centred=False))
    ),
    "saelens 6 layer norm": (
        lambda f: saelens_6(f, "standard", BASE, normalize_activations="layer_norm"),
        lambda x: relu(before(layer_norm(x))),
    ),
    "saelens 6 constant norm": (
        lambda f: saelens_6(f, "jumprelu", BASE | {"threshold": W.threshold}, normalize_activations="constant_norm_rescale"),
        lambda x: jump(before(unit_length(x)), W.threshold),
    ),
    "saelens 6 average norm": (scaled, lambda x: relu(before(0.25 * x))),
    "saelens 6 gated": (lambda f: saelens_6(f, "gated", GATED), gated),
    "saelens 6 jumprelu": (
        lambda f: saelens_6(f, "jumprelu", BASE | {"threshold": W.threshold}), lambda x: jump(before(x), W.threshold)
    ),
    "saelens 6 jumprelu in training": (
        lambda f: saelens_6(f, "jumprelu", BASE | {"log_threshold": np.log(W.threshold)}),
        lambda x: jump(before(x), W.threshold),
    ),
    "saelens 6 thresholds below zero": (
        lambda f: saelens_6(f, "jumprelu", BASE | {"threshold": -W.threshold}), lambda x: relu(before(x))
    ),
    "saelens 6 topk": (lambda f: saelens_6(f, "topk", BASE, k=K), lambda x: top_k(before(x), K)),
    "saelens 6 topk by decoder": (
        lambda f: saelens_6(f, "topk", BASE, k=K, rescale_acts_by_decoder_norm=True), lambda x: top_k(by_decoder(x), K)
    ),
    "saelens 6 batchtopk in training": (
        lambda f: saelens_6(f, "batchtopk", BASE | {"topk_threshold": np.asarray(1.5)}, k=4.5),
        lambda x: jump(before(x), 1.5),
    ),
    "saelens 6 matryoshka by decoder": (
        lambda f: saelens_6(
            f, "matryoshka_batchtopk", BASE | {"topk_threshold": np.asarray(3.0)}, k=4.0, rescale_acts_by_decoder_norm=True
        ),
        lambda x: jump(by_decoder(x), 3.0),
    ),
    "saelens 6 transcoder": (
        lambda f: saelens_6(f, "transcoder", ACROSS, d_out=D + 2, hook_name="blocks.3.hook_resid_pre", **NO_CENTRE),
        lambda x: relu(x @ WIDE.w_enc + WIDE.b_enc),
    ),
    "saelens 6 skip transcoder": (
        lambda f: saelens_6(
            f, "jumprelu_skip_transcoder", ACROSS | {"threshold": WIDE.threshold, "W_skip": np.zeros((D + 2, D))},
            d_out=D + 2, **NO_CENTRE,
        ),
        lambda x: jump(x @ WIDE.w_enc + WIDE.b_enc, WIDE.threshold),
    ),
    "saelens 3 standard": (lambda f: saelens_3(f, "standard", BASE), lambda x: relu(before(x))),
    "saelens 3 topk": (
        lambda f: saelens_3(f, "standard", BASE, activation_fn_str="topk", activation_fn_kwargs={"k": K}),
        lambda x: top_k(before(x), K),
    ),
    "saelens 3 gated": (lambda f: saelens_3(f, "gated", GATED), gated),
    "saelens 3 finetuned": (
        lambda f: saelens_3(f, "standard", BASE | {"scaling_factor": 2 * np.ones(U)}, finetuning_scaling_factor=True),
        lambda x: relu(before(x)),
    ),
    "sparsify": (lambda f: sparsify(f, W), lambda x: top_k(before(x), K)),
    "sparsify num_latents": (
        lambda f: sparsify(f, W, num_latents=U, expansion_factor=32), lambda x: top_k(before(x), K)
    ),
    "sparsify groupmax": (lambda f: sparsify(f, W, activation="groupmax"), group_max),
    "sparsify transcoder": (
        lambda f: sparsify(f, WIDE, transcode=True, skip_connection=True),
        lambda x: top_k(x @ WIDE.w_enc + WIDE.b_enc, K),
    ),
    "gemma scope": (lambda f: gemma_scope(f, W), lambda x: jump(before(x, centred=False), W.threshold)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_latents_equal_those_worked_out_by_hand(name: str, tmp_path: Path) -> None:
    write, by_hand = CASES[name]
    site = site_of(write(tmp_path / "coder"))
    assert (site.width, site.sparse, site.signed) == (U, True, False)
    x = stream()
    expected = by_hand(x.reshape(-1, D).double().numpy())
    assert 0 < (expected != 0).mean() < 0.9
    assert site.read is not None
    found = site.read(x)
    assert found.shape == (5, 7, U)
    np.testing.assert_allclose(dense(found), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["saelens 6 topk", "saelens 6 gated", "sparsify groupmax", "gemma scope"])
def test_chunks_of_tokens_change_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_of(CASES[name][0](tmp_path / "coder"))
    assert site.read is not None
    whole = site.read(stream())
    monkeypatch.setattr(encoder, "CHUNK", 4 * U)
    monkeypatch.setattr(encoder, "LEAST_TOKENS", 1)
    parts = site.read(stream())
    assert torch.equal(whole.positions, parts.positions)
    assert torch.equal(whole.units, parts.units)
    torch.testing.assert_close(whole.values, parts.values)


@pytest.mark.parametrize("name", ["saelens 6 topk", "saelens 6 gated", "saelens 6 standard", "sparsify"])
def test_an_activation_that_is_not_a_number_is_not_lost(name: str, tmp_path: Path) -> None:
    site = site_of(CASES[name][0](tmp_path / "coder"))
    x = stream()
    x[1, 2, 3] = torch.nan
    assert site.read is not None
    found = dense(site.read(x))
    assert np.isnan(found[9]).any()
    assert not np.isnan(np.delete(found, 9, axis=0)).any()


def test_activations_of_half_precision_are_encoded_in_single_precision(tmp_path: Path) -> None:
    site = site_of(gemma_scope(tmp_path, W))
    assert site.read is not None
    x = stream().bfloat16()
    torch.testing.assert_close(site.read(x).values, site.read(x.float()).values, rtol=0, atol=0)


def test_weights_of_half_precision_are_read(tmp_path: Path) -> None:
    folder = saelens_6(tmp_path, "standard", BASE, dtype="bfloat16")
    save(folder / "sae_weights.safetensors", BASE, torch.bfloat16)
    site = site_of(folder)
    rounded = {name: torch.tensor(value).bfloat16().double().numpy() for name, value in BASE.items()}
    x = stream().reshape(-1, D).double().numpy()
    assert site.read is not None
    expected = relu((x - rounded["b_dec"]) @ rounded["W_enc"] + rounded["b_enc"])
    np.testing.assert_allclose(dense(site.read(stream())), expected, rtol=2e-5, atol=2e-5)


def test_weights_are_read_when_the_first_activations_come(tmp_path: Path) -> None:
    site = site_of(sparsify(tmp_path, W))
    other = draw(seed=5)
    sparsify(tmp_path, other)
    assert site.read is not None
    x = stream()
    expected = top_k(before(x.reshape(-1, D).double().numpy(), other), K)
    np.testing.assert_allclose(dense(site.read(x)), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_rows_of_the_encoder_and_the_decoder(name: str, tmp_path: Path) -> None:
    site = site_of(CASES[name][0](tmp_path / "coder"))
    assert site.vectors is not None
    vectors = site.vectors()
    weights = WIDE if "transcoder" in name else W
    assert vectors.reads is not None
    assert vectors.writes is not None
    np.testing.assert_allclose(vectors.reads.numpy(), weights.w_enc.T, rtol=1e-6)
    factor = 2 if "finetuned" in name else 1
    np.testing.assert_allclose(vectors.writes.numpy(), factor * weights.w_dec, rtol=1e-6)


def test_latents_of_neurons_have_no_vectors_in_the_stream(tmp_path: Path) -> None:
    site = site_of(saelens_6(tmp_path, "standard", BASE, hook_name="blocks.3.mlp.hook_post"), hidden_size=99)
    assert site.vectors is not None
    assert site.vectors().reads is None
    assert site.vectors().writes is None
