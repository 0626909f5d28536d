"""Rotary embeddings in one pass: right to float32 rounding, and what is not known is left alone."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, CohereConfig, GPT2Config, GPTNeoXConfig, LlamaConfig, PhiConfig, Qwen3Config
from transformers.models.llama import modeling_llama

from pipeline.subjects.fast_rotary import NAME, fast_rotary

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 50,
    "pad_token_id": 0,
}
FEWER_KEYS = {"num_key_value_heads": 1, "head_dim": 16}
MODELS: dict[str, tuple[Any, int]] = {
    "llama": (LlamaConfig(**SMALL, **FEWER_KEYS), 1),
    "qwen": (Qwen3Config(**SMALL, **FEWER_KEYS), 1),
    "neox, some of the dimensions": (GPTNeoXConfig(**SMALL), 1),
    "phi, some of the dimensions": (PhiConfig(**SMALL), 1),
    "cohere, neighbours in pairs": (CohereConfig(**SMALL, **FEWER_KEYS), 0),
    "gpt2, without": (GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50), 0),
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_outputs_of_a_model_stay_the_same(name: str, padded: bool) -> None:
    config, files = MODELS[name]
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval().requires_grad_(False)
    ids = torch.arange(24).reshape(2, 12)
    named = {"attention_mask": (torch.arange(12) < torch.tensor([[12], [7]])).long()} if padded else {}
    with torch.inference_mode():
        stock = model(ids, **named).last_hidden_state
        with fast_rotary(model) as found:
            ours = model(ids, **named).last_hidden_state
        again = model(ids, **named).last_hidden_state
    assert found == files
    assert (ours - stock).abs().max() <= 1e-5 * stock.abs().max()
    assert torch.equal(again, stock)


@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_right_to_rounding_and_not_the_file_s_own(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    query, key = (torch.randn(3, 7, heads, 16, generator=generator).transpose(1, 2) for heads in (5, 2))
    cos, sin = (torch.randn(batch, 7, 16, generator=generator) for _ in range(2))
    exact = modeling_llama.apply_rotary_pos_emb(*(part.double() for part in (query, key, cos, sin)))
    with fast_rotary(llama()):
        monkeypatch.setattr(modeling_llama, "rotate_half", None)
        for inputs in (query, query.contiguous()):
            for found, expected in zip(modeling_llama.apply_rotary_pos_emb(inputs, key, cos, sin), exact, strict=True):
                assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
                assert found.shape == expected.shape


def test_what_is_not_float32_or_needs_gradients_goes_the_usual_way() -> None:
    stock = modeling_llama.apply_rotary_pos_emb
    query, key, cos, sin = (torch.randn(2, 3, 4, 8) for _ in range(4))
    angles = cos[:, 0], sin[:, 0]
    with fast_rotary(llama()):
        doubled = [part.double() for part in (query, key, *angles)]
        assert modeling_llama.apply_rotary_pos_emb(*doubled)[0].dtype == torch.float64
        swapped = [part.transpose(1, 2) for part in (query, key)]
        for found, expected in zip(
            modeling_llama.apply_rotary_pos_emb(*swapped, *angles, unsqueeze_dim=2),
            stock(*swapped, *angles, unsqueeze_dim=2),
            strict=True,
        ):
            assert torch.equal(found, expected)
        query.requires_grad_()
        modeling_llama.apply_rotary_pos_emb(query, key, *angles)[0].sum().backward()
        assert query.grad is not None


@pytest.mark.parametrize("angles", [(1, 1, 8), (3, 1, 8), (1, 3, 8)])
def test_angles_of_other_shapes_go_the_usual_way(angles: tuple[int, ...]) -> None:
    stock = modeling_llama.apply_rotary_pos_emb
    inputs = [torch.randn(3, 2, 3, 8), torch.randn(3, 1, 3, 8), torch.randn(angles), torch.randn(angles)]
    with fast_rotary(llama()):
        for found, expected in zip(modeling_llama.apply_rotary_pos_emb(*inputs), stock(*inputs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_two_at_a_time_leave_the_file_as_it_was() -> None:
    stock = modeling_llama.apply_rotary_pos_emb
    first, second = fast_rotary(llama()), fast_rotary(llama())
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert modeling_llama.apply_rotary_pos_emb is stock


@pytest.mark.parametrize("function", [lambda q, k, cos, sin: (q * cos[:, None], k * cos[:, None]), lambda q: q, 3])
def test_what_is_something_else_is_left_alone(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ModuleType("modeling_odd")
    setattr(file, NAME, function)
    monkeypatch.setitem(sys.modules, "modeling_odd", file)
    part = type("Odd", (nn.Module,), {"__module__": "modeling_odd"})()
    with fast_rotary(part) as found:
        assert found == 0
        assert getattr(file, NAME) is function


def llama() -> Any:
    return AutoModel.from_config(LlamaConfig(**SMALL, **FEWER_KEYS))
