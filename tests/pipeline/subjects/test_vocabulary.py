"""The tokens that a unit favours and answers to, read off the weights, against computation by hand."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from pipeline.subjects.sites import find_sites
from pipeline.subjects.vocabulary import find_unembedding, input_side, mlp_norm
from tests.pipeline.subjects.test_sites import CONFIGS, SIZES

NORMS_OF_MLPS = {
    "llama": "post_attention_layernorm", "qwen3": "post_attention_layernorm", "gemma3": "pre_feedforward_layernorm",
    "phi3": "post_attention_layernorm", "gpt2": "ln_2", "gpt_neo": "ln_2", "starcoder2": "post_attention_layernorm",
    "gpt_neox": "post_attention_layernorm", "bloom": "post_attention_layernorm", "gptj": "ln_1", "phi": "input_layernorm",
    "mpt": "norm_2", "opt": "final_layer_norm",
}  # fmt: skip


def model(name: str, **changes: Any) -> Any:
    """A random model whose norms have gains and biases of their own."""
    config, _, _ = CONFIGS[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(1)
    made = hf.AutoModelForCausalLM.from_config(config).eval()
    for parameter in made.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5)
    return made.requires_grad_(False)


def by_hand(made: Any, vectors: torch.Tensor, *, centred: bool, gain: torch.Tensor) -> torch.Tensor:
    """(U, V) logits of unembed(final norm(vector)), without what is added to every vector alike."""
    middle = vectors - vectors.mean(1, keepdim=True) if centred else vectors
    return (middle / middle.pow(2).mean(1, keepdim=True).sqrt() * gain) @ made.lm_head.weight.T


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
@pytest.mark.parametrize("tied", [True, False])
def test_a_layer_norm_is_centred_and_scaled_without_its_bias(scale: float, tied: bool) -> None:
    made = model("gpt2", tie_word_embeddings=tied)
    assert (made.lm_head.weight is made.transformer.wte.weight) == tied
    vectors = torch.randn(7, 16) * scale
    head = find_unembedding(made, 16)
    assert head is not None
    wanted = by_hand(made, vectors, centred=True, gain=made.transformer.ln_f.weight)
    torch.testing.assert_close(head.project(vectors) @ head.weight.T, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "offset"), [("llama", 0.0), ("gemma3", 1.0)])
def test_an_rms_norm_scales_alone(name: str, offset: float) -> None:
    made = model(name)
    vectors = torch.randn(7, 16)
    head = find_unembedding(made, 16)
    assert head is not None
    wanted = by_hand(made, vectors, centred=False, gain=made.model.norm.weight + offset)
    torch.testing.assert_close(head.project(vectors) @ head.weight.T, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_family_has_its_final_norm_and_the_opposite_vector_gives_the_opposite(name: str) -> None:
    made = model(name)
    head = find_unembedding(made, 16)
    assert head is not None
    assert head.norm is not None
    seen: list[torch.Tensor] = []
    head.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    states = made.base_model(torch.tensor([[3, 4, 5]])).last_hidden_state
    torch.testing.assert_close(seen[0].view(states.shape), states)
    vectors = torch.randn(3, 16)
    torch.testing.assert_close(head.project(-vectors), -head.project(vectors), rtol=1e-4, atol=1e-5)
    assert not head.project(torch.zeros(1, 16)).any()


def test_models_without_a_head_that_reads_the_residual_stream_say_nothing() -> None:
    encoder = hf.BertConfig(**{key: value for key, value in SIZES.items() if key != "num_key_value_heads"})
    assert find_unembedding(hf.BertModel(encoder), 16) is None
    assert find_unembedding(hf.BertLMHeadModel(encoder), 16) is None, "its head has layers of its own"
    assert find_unembedding(model("llama"), 8) is None
    narrow = CONFIGS["opt"]()[0]
    narrow.word_embed_proj_dim = 8
    assert find_unembedding(hf.OPTForCausalLM(narrow), 16) is None, "projects to the width of the embedding first"


@pytest.mark.parametrize("name", CONFIGS)
def test_the_norm_of_an_mlp_is_the_one_whose_output_it_reads(name: str) -> None:
    made = model(name)
    site = find_sites(made.base_model, ["layers.1.mlp"])["layers.1.mlp"]
    norm = mlp_norm(made.base_model, site)
    assert norm is not None
    path = next(path for path, module in made.base_model.named_modules() if module is norm)
    assert path.endswith(f"1.{NORMS_OF_MLPS[name]}")
    assert site.vectors is not None
    reads = site.vectors().reads
    assert reads is not None
    reader = next(
        module for module in made.base_model.modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.data_ptr() == reads.data_ptr()
    )  # fmt: skip
    seen: dict[str, torch.Tensor] = {}
    norm.register_forward_hook(lambda module, inputs, output: seen.update(normed=output))
    reader.register_forward_hook(lambda module, inputs, output: seen.update(read=inputs[0], answer=output))
    made.base_model(torch.tensor([[3, 4, 5, 6]]))
    torch.testing.assert_close(seen["read"].view(-1, 16), seen["normed"].view(-1, 16))
    bias = getattr(reader, "bias", None)
    answer = seen["answer"].view(4, -1)[:, : site.width] - (0 if bias is None else bias[: site.width])
    torch.testing.assert_close(answer, seen["normed"].view(-1, 16) @ reads.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_neuron_writes_its_vector(name: str) -> None:
    made = model(name)
    site = find_sites(made.base_model, ["layers.0.mlp"])["layers.0.mlp"]
    assert site.vectors is not None
    writes = site.vectors().writes
    assert writes is not None
    fired = torch.zeros(1, 1, site.width)
    silent = site.module(fired.clone())
    fired[..., 5] = 2.0
    torch.testing.assert_close((site.module(fired) - silent)[0, 0], 2 * writes[5], rtol=1e-4, atol=1e-5)


def test_rows_of_the_embedding_pass_the_norm_of_the_mlp_and_of_no_other_kind_of_unit() -> None:
    made = model("gpt2")
    site = find_sites(made.base_model, ["layers.0.mlp"])["layers.0.mlp"]
    rows = made.get_input_embeddings().weight
    torch.testing.assert_close(input_side(made.base_model, site, rows), made.transformer.h[0].ln_2(rows))
    other = type(site)("layers.0.residual", site.module, 16)
    assert input_side(made.base_model, other, rows) is rows


def test_a_layer_that_norms_what_it_writes_reads_the_residual_stream_itself() -> None:
    made = hf.AutoModelForCausalLM.from_config(hf.Olmo2Config(**SIZES))
    site = find_sites(made.base_model, ["layers.0.mlp"])["layers.0.mlp"]
    assert mlp_norm(made.base_model, site) is None
