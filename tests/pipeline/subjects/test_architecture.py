"""In every family, the parts found by the table hold what their names say."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import find_hook_points
from pipeline.subjects.architecture import PATHS, Layer, matrix, norm_scale
from tests.pipeline.subjects.families import (
    FAMILIES,
    HIDDEN,
    LLAMA,
    Family,
    activations,
    layer,
    random_model,
    seen_by,
    token_batch,
)

BATCH = token_batch([6, 6, 6])
families = pytest.mark.parametrize("name", FAMILIES)


@families
def test_neurons_are_those_computed_by_hand_from_the_weights(name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    found = activations(model, ["layers.1.mlp"], BATCH)["layers.1.mlp"]
    by_hand = family.by_hand(layer(model, family, 1), seen_by(model, family, BATCH, family.mlp))
    torch.testing.assert_close(found, by_hand, rtol=1e-5, atol=1e-5)
    assert found.std() > 0.01
    site = find_hook_points(model.base_model, ["layers.1.mlp"])["layers.1.mlp"]
    assert site.signed == family.signed == bool((found < 0).any())


@families
def test_a_layer_adds_what_attention_and_the_mlp_write(name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    modules = [f"layers.{number}.{kind}" for number in (0, 1) for kind in ("residual", "attn_out", "mlp_out")]
    found = activations(model, modules, BATCH)
    before, attention, mlp, after = (
        found[key] for key in ("layers.0.residual", "layers.1.attn_out", "layers.1.mlp_out", "layers.1.residual")
    )
    if family.sums_normalised:
        block = layer(model, family, 1)
        first = part_of(block, "attention.output.LayerNorm", "sa_layer_norm")
        second = part_of(block, "output.LayerNorm", "output_layer_norm")
        expected = second(first(before + attention) + mlp)
    else:
        expected = before + attention + mlp
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
    for tensor in (attention, mlp):
        assert tensor.std() > 0.01


@pytest.mark.parametrize(
    ("name", "attention_norm", "mlp_norm"),
    [
        ("gemma2", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("gemma3", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("olmo2", "post_attention_layernorm", "post_feedforward_layernorm"),
        ("glm4", "post_self_attn_layernorm", "post_mlp_layernorm"),
    ],
)
def test_what_is_written_has_gone_through_the_norm_behind_its_own_part(
    name: str, attention_norm: str, mlp_norm: str
) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    block: Any = layer(model, family, 1)
    found = activations(model, ["layers.1.attn_out", "layers.1.mlp", "layers.1.mlp_out"], BATCH)
    heads = seen_by(model, family, BATCH, family.o_proj)
    attention = getattr(block, attention_norm)(block.self_attn.o_proj(heads))
    mlp = getattr(block, mlp_norm)(block.mlp.down_proj(found["layers.1.mlp"]))
    torch.testing.assert_close(found["layers.1.attn_out"], attention)
    torch.testing.assert_close(found["layers.1.mlp_out"], mlp)


def part_of(block: nn.Module, *paths: str) -> nn.Module:
    named = dict(block.named_modules())
    return next(named[path] for path in paths if path in named)


@families
def test_what_a_neuron_writes_is_its_column_of_the_projection(name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    site = find_hook_points(model.base_model, ["layers.1.mlp"])["layers.1.mlp"]
    assert site.vectors is not None
    writes = site.vectors().writes
    assert writes is not None
    before = activations(model, ["layers.1.mlp", "layers.1.mlp_out"], BATCH)
    site.module.register_forward_pre_hook(lambda _, inputs: (inputs[0] * (torch.arange(site.width) != 7),))
    after = activations(model, ["layers.1.mlp_out"], BATCH)["layers.1.mlp_out"]
    difference = before["layers.1.mlp_out"] - after
    if family.writes_normalised:  # only where the norm is known can a single neuron's part be told
        block = layer(model, family, 1)
        scale = norm_scale(Layer("", 1, block, model.config).part("mlp_post_norm"), HIDDEN)
        torch.testing.assert_close(writes, matrix(site.module).T * scale)
    else:
        torch.testing.assert_close(difference, before["layers.1.mlp"][..., 7:8] * writes[7], rtol=1e-3, atol=1e-4)


@families
def test_what_a_neuron_reads_grows_with_its_projection(name: str) -> None:
    """By the normalised residual stream in front of the MLP, up to a constant of each neuron."""
    family = FAMILIES[name]
    model = random_model(family.config())
    site = find_hook_points(model.base_model, ["layers.1.mlp"])["layers.1.mlp"]
    assert site.vectors is not None
    reads = site.vectors().reads
    assert reads is not None
    stream = stream_before_mlp(model, family)
    if family.norm == "layer":
        stream = stream - stream.mean(dim=-1, keepdim=True)
    if family.norm != "none":
        stream = stream / stream.square().mean(dim=-1, keepdim=True).sqrt()
    ups = ("mlp.gate_proj", "mlp.gate_up_proj", "mlp.Wi", "mlp.up_proj", "mlp.c_fc", "mlp.dense_h_to_4h", "mlp.fc_in",
           "mlp.fc1", "ffn.up_proj", "ffn.lin1", "fc1", "intermediate.dense")  # fmt: skip
    before_act = part_of(layer(model, family, 1), *ups)(seen_by(model, family, BATCH, family.mlp))[..., : site.width]
    rest = before_act - stream @ reads.T  # (B, T, U)
    torch.testing.assert_close(rest, rest[:1, :1].expand_as(rest), rtol=1e-2, atol=2e-3)


def stream_before_mlp(model: Any, family: Family) -> torch.Tensor:
    if family.sums_normalised:
        return seen_by(model, family, BATCH, family.mlp)
    found = activations(model, ["layers.0.residual", "layers.1.attn_out"], BATCH)
    return found["layers.0.residual"] + (0 if family.parallel else found["layers.1.attn_out"])


def test_every_path_of_the_table_is_tested() -> None:
    """But for those of models for images too, and of code that comes with a model."""
    used: dict[str, set[str]] = {name: set() for name in PATHS}
    for family in FAMILIES.values():
        model = random_model(family.config())
        used["layers"].add(family.layers)
        block, named = layer(model, family, 1), dict(layer(model, family, 1).named_modules())
        for name in PATHS:
            if name != "layers":
                part = Layer("", 1, block, model.config).part(name)
                used[name] |= {path for path in PATHS[name] if named.get(path, 0) is part}
    missing = {name: sorted(set(paths) - used[name]) for name, paths in PATHS.items()}
    elsewhere = ["language_model.layers", "model.layers", "text_model.layers"]
    assert {name: paths for name, paths in missing.items() if paths} == {"layers": elsewhere}


class Strange(nn.Module):
    """A model whose parts have names that no table knows, made of a Llama's."""

    def __init__(self, llama: Any) -> None:
        super().__init__()
        self.config, self.base_model, self.embed = llama.config, self, llama.base_model.embed_tokens
        self.trunk = nn.Module()
        self.trunk.add_module("cells", nn.ModuleList(Cell(block) for block in llama.base_model.layers))
        self.rotary = llama.base_model.rotary_emb

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> torch.Tensor:
        x = self.embed(input_ids)
        places = torch.arange(input_ids.shape[1])[None]
        for cell in self.trunk.cells:  # type: ignore[union-attr]
            x = cell(x, self.rotary(x, places))
        return x


class Cell(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        self.mixer, self.feed = block.self_attn, block.mlp

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(hidden_states=x, position_embeddings=angles, attention_mask=None)[0]
        return x + self.feed(x)


PLACES: dict[Any, str] = {
    "layers": "trunk.cells",
    "mlp": "feed",
    "down_proj": "feed.down_proj",
    "o_proj": "mixer.o_proj",
}


def test_the_run_file_says_where_the_parts_of_an_unknown_model_are() -> None:
    strange: Any = Strange(random_model(FAMILIES["llama"].config()))
    kinds = ("mlp", "attn", "attn_out", "mlp_out", "residual")
    subject = Subject(model="strange", modules=["layers.1.mlp"], paths=PLACES)
    found = activations(strange, [f"layers.1.{kind}" for kind in kinds], BATCH, subject=subject)
    family = Family(**(LLAMA | {"config": None, "layers": "trunk.cells", "mlp": "feed"}))
    reads = seen_by(strange, family, BATCH, "feed")
    cell: Any = layer(strange, family, 1)
    neurons = torch.nn.functional.silu(cell.feed.gate_proj(reads)) * cell.feed.up_proj(reads)
    torch.testing.assert_close(found["layers.1.mlp"], neurons)
    torch.testing.assert_close(found["layers.1.residual"], reads + found["layers.1.mlp_out"])
    assert Layer("x", 1, cell, strange.config, PLACES).place("mlp_in") == (cell.feed, "input")


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ({}, ["layers of a Strange were not found", "trunk.cells", "subject.paths = { layers"]),
        ({"layers": "trunk.rooms"}, ["'trunk.rooms'"]),
        ({"layers": "trunk.cells"}, ["down_proj", "feed.down_proj", "subject.paths = { down_proj"]),
        ({"layers": "trunk.cells", "down_proj": "feed.nothing"}, ["'feed.nothing'", "feed.down_proj"]),
    ],
)
def test_parts_that_are_not_found_are_told_with_what_there_is(paths: dict[Any, str], says: list[str]) -> None:
    strange: Any = Strange(random_model(FAMILIES["llama"].config()))
    with pytest.raises(UserError) as caught:
        find_hook_points(strange, ["layers.1.mlp"], Subject(model="strange", modules=["layers.1.mlp"], paths=paths))
    for words in says:
        assert words in str(caught.value)


def test_a_layer_of_experts_has_outputs_but_no_neurons_of_its_own() -> None:
    sizes = FAMILIES["llama"].config().to_dict()
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size")
    model = random_model(
        hf.MixtralConfig(**{key: sizes[key] for key in keys}, intermediate_size=24, num_local_experts=2)
    )
    found = activations(
        model, ["layers.0.residual", "layers.1.attn_out", "layers.1.mlp_out", "layers.1.residual"], BATCH
    )
    before, attention, mlp, after = found.values()
    torch.testing.assert_close(after, before + attention + mlp)
    with pytest.raises(UserError, match=r"'layers\.0\.mlp' needs the down_proj of a MixtralDecoderLayer"):
        find_hook_points(model.base_model, ["layers.0.mlp"])


def test_the_norm_of_summed_streams_is_not_taken_for_one_in_front_of_the_mlp() -> None:
    config = FAMILIES["opt"].config()
    config.do_layer_norm_before = False
    block = layer(random_model(config), FAMILIES["opt"], 0)
    assert Layer("", 0, block, config).part("mlp_norm") is None


def test_a_configuration_without_the_width_of_the_stream_is_told() -> None:
    config = hf.PreTrainedConfig()
    with pytest.raises(UserError, match=r"'layers\.0\.residual'.*no hidden_size"):
        Layer("layers.0.residual", 0, nn.Module(), config).width("residual")
