"""Coders on random models: their latents are those of the model's own tensors, and their weights are told as the model meets them."""

from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm, linear, rms_norm

from pipeline.config import Subject
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import HookPoint, ModelActivations, check_sources, find_hook_points
from pipeline.subjects.activations import SparseActivations
from pipeline.subjects.architecture import norm_scale
from pipeline.subjects.vocabulary import embedding_rows
from stages.settings import SECTIONS
from tests.pipeline.subjects.families import FAMILIES, HIDDEN, layer, random_model, seen_by, token_batch
from tests.pipeline.subjects.saes.layouts import Array, K, dense, draw, gemma_scope, saelens_6, sparsify, top_k

NAME = "layers.1.sae:x"
BATCH = token_batch([6, 6])
W = draw(inputs=HIDDEN, outputs=HIDDEN)
BASE = {"W_enc": W.w_enc, "b_enc": W.b_enc, "W_dec": W.w_dec, "b_dec": W.b_dec}
TRANSCODER: dict[str, Any] = {"d_in": HIDDEN, "d_out": HIDDEN, "apply_b_dec_to_input": False}
POST_NORMS = {
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}


def find(model: Any, path: Path, **settings: Any) -> HookPoint:
    subject = Subject(model="x", modules=[NAME], saes={"x": {"path": str(path), **settings}})  # type: ignore[dict-item]
    return find_hook_points(model.base_model, [NAME], subject)[NAME]


def latents(model: Any, site: HookPoint) -> Array:
    """(N, U)"""
    taken: list[SparseActivations] = []
    ModelActivations(model.base_model, {NAME: site}).run(BATCH, lambda _, found: taken.append(found))
    return dense(taken[0])


def before_gain(tmp_path: Path, form: str) -> Path:
    """A transcoder that reads what the norm in front of the MLP gives before its gain."""
    if form == "gemma_scope":
        return gemma_scope(tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_1" / "width_16k", W)
    return saelens_6(tmp_path, "transcoder", BASE, hook_name="blocks.1.ln2.hook_normalized", **TRANSCODER)


def normalised(name: str, x: torch.Tensor) -> torch.Tensor:
    return layer_norm(x, [HIDDEN], eps=1e-5) if name == "gpt2" else rms_norm(x, [HIDDEN], eps=1e-6)


def encoded(x: torch.Tensor, threshold: Array | float) -> Array:
    """Latents of (B, T, D) by hand, not centred."""
    values = x.reshape(-1, HIDDEN).double().numpy() @ W.w_enc + W.b_enc
    return np.asarray(values * (values > threshold))


@pytest.mark.parametrize("offloaded", [False, True])
@pytest.mark.parametrize("form", ["gemma_scope", "saelens"])
@pytest.mark.parametrize(("name", "norm"), [("gpt2", "ln_2"), ("gemma2", "pre_feedforward_layernorm")])
def test_a_transcoder_encodes_what_the_norm_gives_before_its_gain(
    name: str, norm: str, form: str, offloaded: bool, tmp_path: Path
) -> None:
    model = random_model(FAMILIES[name].config())
    expected = encoded(
        normalised(name, seen_by(model, FAMILIES[name], BATCH, norm)), W.threshold if form == "gemma_scope" else 0
    )
    if offloaded:
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    found = latents(model, find(model, before_gain(tmp_path, form)))
    assert 0 < (expected != 0).mean() < 0.9
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("part", ["mlp", "self_attn"])
@pytest.mark.parametrize("name", POST_NORMS)
def test_a_module_s_output_is_encoded_before_the_norm_behind_it_and_a_hook_s_after_it(
    name: str, part: str, tmp_path: Path
) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    projection = "mlp.down_proj" if part == "mlp" else "self_attn.o_proj"
    weights = dict(layer(model, family, 1).named_parameters())
    output = linear(seen_by(model, family, BATCH, projection), weights[f"{projection}.weight"])
    norm = layer(model, family, 1).get_submodule(POST_NORMS[name][part == "mlp"])

    def by_hand(x: torch.Tensor) -> Array:
        return top_k((x.reshape(-1, HIDDEN).double().numpy() - W.b_dec) @ W.w_enc + W.b_enc, K)

    module = find(model, sparsify(tmp_path / f"layers.1.{part}", W, d_in=HIDDEN, num_latents=W.b_enc.size))
    np.testing.assert_allclose(latents(model, module), by_hand(output), rtol=1e-3, atol=1e-3)
    kind = "mlp" if part == "mlp" else "attn"
    hook = find(model, saelens_6(tmp_path / "6", "topk", BASE, k=K, d_in=HIDDEN, hook_name=f"blocks.1.hook_{kind}_out"))
    np.testing.assert_allclose(latents(model, hook), by_hand(norm(output)), rtol=1e-3, atol=1e-3)
    for site, scale in ((module, norm_scale(norm, HIDDEN).numpy()), (hook, 1.0)):
        assert site.vectors is not None
        assert site.vectors().reads is None
        np.testing.assert_allclose(np.asarray(site.vectors().writes), W.w_dec * scale, rtol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_latents_answer_to_embedding_rows_as_they_do_in_front_of_the_mlp(name: str, tmp_path: Path) -> None:
    model = random_model(FAMILIES[name].config())
    rows = model.get_input_embeddings().weight
    block: Any = layer(model, FAMILIES[name], 1)
    norm = block.ln_2 if name == "gpt2" else block.pre_feedforward_layernorm
    after = saelens_6(tmp_path / "after", "transcoder", BASE, hook_name="model.layers.1.mlp", **TRANSCODER)
    cases = {
        before_gain(tmp_path, "gemma_scope"): normalised(name, rows),
        after: norm(rows) - norm(torch.zeros_like(rows)),
    }
    for path, met in cases.items():
        site = find(model, path)
        assert site.vectors is not None
        reads = site.vectors().reads
        assert reads is not None
        expected = met.double().numpy() @ W.w_enc
        np.testing.assert_allclose((embedding_rows(model, site) @ reads.T).numpy(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("reads", "reading", "writing"),
    [
        ("residual", True, True),
        ("residual_in", True, True),
        ("mlp_in", True, False),
        ("attn_out", False, True),
        ("mlp_out", False, True),
    ],
)
def test_an_autoencoder_has_vectors_where_it_reads_the_stream_or_gives_back_what_is_added_to_it(
    reads: str, reading: bool, writing: bool, tmp_path: Path
) -> None:
    site = find(random_model(FAMILIES["llama"].config()), gemma_scope(tmp_path, W), reads=reads)
    assert site.vectors is not None
    vectors = site.vectors()
    assert (vectors.reads is not None, vectors.writes is not None) == (reading, writing)


@pytest.mark.parametrize("reads", ["residual", "mlp_in", "attn_out", "mlp"])
@pytest.mark.parametrize("form", ["gemma_scope", "sparsify"])
def test_a_coder_of_the_wrong_width_is_told_before_anything_is_recorded(
    form: str, reads: str, tiny_llama: Path, tmp_path: Path
) -> None:
    def check(inputs: int) -> None:
        weights, folder = draw(inputs=inputs, outputs=inputs), tmp_path / str(inputs)
        sizes = {"d_in": inputs, "num_latents": weights.b_enc.size}
        path = gemma_scope(folder, weights) if form == "gemma_scope" else sparsify(folder, weights, **sizes)
        subject = {"model": str(tiny_llama), "modules": [NAME], "saes": {"x": {"path": str(path), "reads": reads}}}
        check_sources(
            parse_config({"run": {"name": "r"}, "subject": subject, "corpus": {"source": "x"}}, "r.toml", SECTIONS)
        )

    width = 24 if reads == "mlp" else 16
    check(width)
    with pytest.raises(UserError, match=f"encodes 12 dimensions, and {reads} of this model has {width}"):
        check(12)


def test_files_of_gemma_scope_s_transcoders_pass_the_check_without_the_model_s_weights(
    tiny_llama: Path, tmp_path: Path
) -> None:
    path = before_gain(tmp_path, "gemma_scope") / "params.npz"
    subject = {"model": str(tiny_llama), "modules": [NAME], "saes": {"x": {"path": str(path)}}}
    check_sources(
        parse_config({"run": {"name": "r"}, "subject": subject, "corpus": {"source": "x"}}, "r.toml", SECTIONS)
    )
