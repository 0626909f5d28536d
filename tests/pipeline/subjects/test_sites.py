"""Module names lead to the projection whose input holds the neurons, in every family of the table."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from pipeline.errors import UserError
from pipeline.subjects.sites import DOWN_PROJECTIONS, all_sites, find_sites

SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 50, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 0,
}  # fmt: skip
OLD = {
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "vocab_size": 50,
    "n_positions": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
EVEN = SIZES | {"num_key_value_heads": 2}

CONFIGS: dict[str, Callable[[], tuple[Any, int, str]]] = {
    "llama": lambda: (hf.LlamaConfig(**SIZES), 24, "mlp.down_proj"),
    "qwen3": lambda: (hf.Qwen3Config(**SIZES, head_dim=8), 24, "mlp.down_proj"),
    "gemma3": lambda: (hf.Gemma3TextConfig(**SIZES, head_dim=8), 24, "mlp.down_proj"),
    "phi3": lambda: (hf.Phi3Config(**SIZES), 24, "mlp.down_proj"),
    "gpt2": lambda: (hf.GPT2Config(**OLD), 64, "mlp.c_proj"),
    "gpt_neo": lambda: (
        hf.GPTNeoConfig(
            hidden_size=16, num_layers=2, num_heads=2, vocab_size=50, attention_types=[[["global"], 2]],
            bos_token_id=0, eos_token_id=1,
        ), 64, "mlp.c_proj",
    ),
    "starcoder2": lambda: (hf.Starcoder2Config(**SIZES), 24, "mlp.c_proj"),
    "gpt_neox": lambda: (hf.GPTNeoXConfig(**SIZES), 24, "mlp.dense_4h_to_h"),
    "bloom": lambda: (hf.BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=50), 64, "mlp.dense_4h_to_h"),
    "gptj": lambda: (hf.GPTJConfig(**OLD, rotary_dim=4), 64, "mlp.fc_out"),
    "phi": lambda: (hf.PhiConfig(**EVEN), 24, "mlp.fc2"),
    "mpt": lambda: (hf.MptConfig(d_model=16, n_layers=2, n_heads=2, vocab_size=50), 64, "ffn.down_proj"),
    "opt": lambda: (
        hf.OPTConfig(
            hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=50, word_embed_proj_dim=16,
            max_position_embeddings=32, bos_token_id=0, eos_token_id=1, pad_token_id=0,
        ), 24, "fc2",
    ),
}  # fmt: skip


def _model(name: str) -> tuple[Any, int, str]:
    config, width, path = CONFIGS[name]()
    torch.manual_seed(0)
    return hf.AutoModelForCausalLM.from_config(config).eval(), width, path


@pytest.mark.parametrize("name", CONFIGS)
def test_the_input_of_the_site_has_one_number_a_neuron_and_token(name: str) -> None:
    model, width, path = _model(name)
    sites = find_sites(model.base_model, ["layers.1.mlp", "layers.0.mlp"])
    assert list(sites) == ["layers.1.mlp", "layers.0.mlp"], "in the order of the run file"
    seen: dict[str, torch.Size] = {}
    for site in sites.values():
        hook = lambda module, inputs, site=site: seen.__setitem__(site.name, inputs[0].shape)  # noqa: E731
        site.module.register_forward_pre_hook(hook)
        assert site.width == width
    model.base_model(torch.randint(0, 50, (3, 5)))
    for shape in seen.values():
        assert shape[-1] == width
        assert shape.numel() == 3 * 5 * width
    assert len(seen) == 2
    named = dict(model.base_model.named_modules())
    assert any(key.endswith(f"1.{path}") and named[key] is sites["layers.1.mlp"].module for key in named)


def test_every_structure_of_the_table_is_tested() -> None:
    assert {_model(name)[2] for name in CONFIGS} == set(DOWN_PROJECTIONS)


def test_silencing_a_neuron_takes_its_column_of_the_projection_away() -> None:
    model, _, _ = _model("gpt2")
    site = find_sites(model.base_model, ["layers.0.mlp"])["layers.0.mlp"]
    outputs: list[torch.Tensor] = []

    def silence(module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        changed = inputs[0].clone()
        outputs.append((changed[..., 7:8] * module.weight[7]).detach())  # type: ignore[index]
        changed[..., 7] = 0
        return (changed,)

    ids = torch.randint(0, 50, (1, 4))
    results: list[torch.Tensor] = []
    site.module.register_forward_hook(lambda module, inputs, output: results.append(output.detach()))
    model.base_model(ids)
    site.module.register_forward_pre_hook(silence)
    model.base_model(ids)
    torch.testing.assert_close(results[0] - results[1], outputs[0])


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("layers.2.mlp", ["layers.2.mlp", "has 2 layers", "layers.0.mlp to layers.1.mlp"]),
        ("layers.0.attn", ["layers.0.attn", "layers.0.mlp to layers.1.mlp"]),
        ("mlp", ["'mlp'", "layers.0.mlp to layers.1.mlp"]),
        ("layers.-1.mlp", ["layers.-1.mlp", "allowed"]),
        ("layers.01.mlp", ["layers.1.mlp instead of"]),
        ("layers.99999999999999999999.mlp", ["has 2 layers"]),
    ],
)
def test_a_wrong_name_is_told_with_what_is_allowed(module: str, says: list[str]) -> None:
    model, _, _ = _model("llama")
    with pytest.raises(UserError) as caught:
        find_sites(model.base_model, [module])
    for part in says:
        assert part in str(caught.value)


def test_a_module_named_twice_is_told() -> None:
    model, _, _ = _model("llama")
    with pytest.raises(UserError, match=r"layers\.1\.mlp more than once"):
        find_sites(model.base_model, ["layers.1.mlp", "layers.0.mlp", "layers.1.mlp"])


def test_layers_without_neurons_of_their_own_are_told() -> None:
    model = hf.AutoModelForCausalLM.from_config(hf.MixtralConfig(**SIZES, num_local_experts=2))
    assert all_sites(model.base_model) == {}
    with pytest.raises(UserError, match="none in this model"):
        find_sites(model.base_model, ["layers.0.mlp"])


def test_a_model_without_layers_is_told() -> None:
    with pytest.raises(UserError, match="layers of a Linear were not found"):
        find_sites(nn.Linear(2, 2), ["layers.0.mlp"])
