"""The tokens that a unit favours and answers to, read off the weights, against computation by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import Directions, Subject
from pipeline.subjects.activation_sources import find_hook_points
from pipeline.subjects.vocabulary import embedding_rows, find_unembedding
from tests.pipeline.subjects.families import FAMILIES, HIDDEN, layer, random_model, seen_by, token_batch

ENCODERS = [name for name, family in FAMILIES.items() if family.sums_normalised] + ["modernbert"]
CAUSAL = [name for name in FAMILIES if name not in ENCODERS]
VECTORS = torch.randn(7, HIDDEN, generator=torch.Generator().manual_seed(0))


def model(name: str, **changes: Any) -> Any:
    config = FAMILIES[name].config()
    for key, value in changes.items():
        setattr(config, key, value)
    return random_model(config)


def by_hand(made: Any, vectors: torch.Tensor, *, centred: bool, gain: torch.Tensor) -> torch.Tensor:
    """(U, V) logits of unembed(final norm(vector)), without what is added to every vector alike."""
    middle = vectors - vectors.mean(1, keepdim=True) if centred else vectors
    return (middle / middle.pow(2).mean(1, keepdim=True).sqrt() * gain) @ made.lm_head.weight.T


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
@pytest.mark.parametrize("tied", [True, False])
def test_a_layer_norm_is_centred_and_scaled_without_its_bias(scale: float, tied: bool) -> None:
    made = model("gpt2", tie_word_embeddings=tied)
    assert (made.lm_head.weight is made.transformer.wte.weight) == tied
    head = find_unembedding(made, HIDDEN)
    assert head is not None
    wanted = by_hand(made, VECTORS * scale, centred=True, gain=made.transformer.ln_f.weight)
    torch.testing.assert_close(head.project(VECTORS * scale) @ head.weight.T, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "offset"), [("llama", 0.0), ("gemma3", 1.0)])
def test_an_rms_norm_scales_alone(name: str, offset: float) -> None:
    made = model(name)
    head = find_unembedding(made, HIDDEN)
    assert head is not None
    wanted = by_hand(made, VECTORS, centred=False, gain=made.model.norm.weight + offset)
    torch.testing.assert_close(head.project(VECTORS) @ head.weight.T, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_family_has_its_final_norm_and_the_opposite_vector_gives_the_opposite(name: str) -> None:
    made = model(name)
    head = find_unembedding(made, HIDDEN)
    assert head is not None
    assert head.norm is not None
    seen: list[torch.Tensor] = []
    head.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    states = made.base_model(torch.tensor([[3, 4, 5]])).last_hidden_state
    torch.testing.assert_close(seen[0].view(states.shape), states)
    torch.testing.assert_close(head.project(-VECTORS), -head.project(VECTORS), rtol=1e-4, atol=1e-4)
    assert not head.project(torch.zeros(1, HIDDEN)).any()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_head_of_an_encoder_has_layers_of_its_own_and_says_nothing(name: str) -> None:
    made = model(name)
    assert made.get_output_embeddings() is not None
    assert find_unembedding(made, HIDDEN) is None


def test_models_without_a_head_that_reads_the_residual_stream_say_nothing() -> None:
    assert find_unembedding(model("llama").model, HIDDEN) is None
    assert find_unembedding(model("llama"), 8) is None
    assert find_unembedding(model("opt", word_embed_proj_dim=8), HIDDEN) is None, "projects to another width first"


@pytest.mark.parametrize("name", FAMILIES)
def test_neurons_answer_to_embedding_rows_as_they_do_in_the_mlp(name: str) -> None:
    """The embedding stands in for the residual stream in front of the MLP: what is listed is what the reader gives then."""
    family, made = FAMILIES[name], model(name)
    site = find_hook_points(made.base_model, ["layers.1.mlp"])["layers.1.mlp"]
    assert site.vectors is not None
    reads = site.vectors().reads
    assert reads is not None
    norm = site.norm
    assert (norm is None) == (family.norm == "none")
    if norm is not None:
        seen: list[torch.Tensor] = []
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
        batch = token_batch([5, 5])
        torch.testing.assert_close(seen_by(made, family, batch, family.mlp).view(10, -1), seen[0].view(10, -1))
    rows = made.get_input_embeddings().weight
    stream = rows if norm is None else norm(rows) - norm(torch.zeros_like(rows[:1]))
    block = layer(made, family, 1)
    size = site.width * HIDDEN
    readers = {
        path: weight if weight.shape[1] == HIDDEN else weight.T
        for path, weight in block.named_parameters()
        if (weight.ndim == 2 and any(part in path for part in ("gate", "c_fc", "h_to_4h", "fc_in", "fc1", "Wi", "lin1")))
        or (path in {"intermediate.dense.weight", "mlp.up_proj.weight", "ffn.up_proj.weight"} and weight.numel() == size)
    }  # fmt: skip
    wanted = stream @ next(iter(readers.values()))[: site.width].T
    torch.testing.assert_close(embedding_rows(made, site) @ reads.T, wanted, rtol=1e-3, atol=1e-3)


def test_only_what_reads_in_front_of_the_mlp_meets_its_norm(tmp_path: Path) -> None:
    made = model("gpt2")
    np.save(tmp_path / "axes.npy", np.eye(HIDDEN))
    rows = made.get_input_embeddings().weight
    for reads in ("mlp_in", "residual", "residual_in", "attn_out", "mlp_out"):
        entry = Directions(path=str(tmp_path / "axes.npy"), reads=reads)
        subject = Subject(model="m", modules=["x"], directions={"axes": entry})
        (found,) = find_hook_points(made.base_model, ["layers.0.directions:axes"], subject).values()
        assert found.norm is (made.transformer.h[0].ln_2 if reads == "mlp_in" else None)
        if reads != "mlp_in":
            torch.testing.assert_close(embedding_rows(made, found), rows, rtol=0, atol=0)


def test_a_norm_that_takes_a_dimension_away_is_no_trouble() -> None:
    made = model("gpt2")
    made.transformer.h[0].ln_2.weight[3] = 0
    site = find_hook_points(made.base_model, ["layers.0.mlp"])["layers.0.mlp"]
    found = embedding_rows(made, site)
    assert found.isfinite().all()
    assert not found[:, 3].any()
