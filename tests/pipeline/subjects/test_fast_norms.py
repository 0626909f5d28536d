"""RMS norms in one pass: right to float32 rounding, and what is not known is left alone."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, Gemma2Config, GPT2Config, LlamaConfig, MistralConfig, Qwen3Config

from pipeline.subjects.fast_norms import fast_norms

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 50,
    "head_dim": 16,
}
NORMS: dict[str, tuple[Any, int]] = {
    "llama": (LlamaConfig(**SMALL), 5),
    "mistral": (MistralConfig(**SMALL), 5),
    "gemma, by 1 + weight": (Gemma2Config(**SMALL, pad_token_id=0), 9),
    "qwen, queries and keys too": (Qwen3Config(**SMALL), 9),
    "gpt2, which has layer norms": (GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=50), 0),
}


@pytest.mark.parametrize("name", NORMS)
def test_the_outputs_of_a_model_stay_the_same(name: str) -> None:
    config, norms = NORMS[name]
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval().requires_grad_(False)
    for part, weights in model.named_parameters():
        if "norm" in part and weights.ndim == 1:
            weights.uniform_(-2, 2)
    ids = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        stock = model(ids).last_hidden_state
        with fast_norms(model) as found:
            ours = model(ids).last_hidden_state
        again = model(ids).last_hidden_state
    assert found == norms
    assert (ours - stock).abs().max() <= 1e-5 * stock.abs().max()
    assert torch.equal(ours, stock) == (norms == 0), "it was not the norms' own forward"
    assert torch.equal(again, stock)


class Odd(nn.Module):
    """Looks like an RMS norm."""

    eps = 1e-6

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs / inputs.abs().mean(-1, keepdim=True) * self.weight


class Fussy(Odd):
    """Takes nothing of three dimensions."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ torch.ones(3, 3)


def test_what_is_no_rms_norm_or_is_wrapped_is_left_alone() -> None:
    odd, wrapped = Odd(), nn.RMSNorm(8, eps=1e-6)
    wrapped.forward = lambda x: x  # type: ignore[method-assign]
    inputs = torch.randn(3, 8)
    with fast_norms(nn.ModuleList([odd, Fussy(), wrapped])) as found:
        assert found == 0
        assert torch.equal(wrapped(inputs), inputs)
    assert "forward" in wrapped.__dict__


def test_what_is_not_finite_and_what_is_not_contiguous() -> None:
    norm = nn.RMSNorm(8, eps=1e-6)
    inputs = torch.randn(8, 5, 3).transpose(0, 2)
    inputs[0, 0, 0], inputs[1, 1] = torch.nan, 0
    with torch.inference_mode():
        stock = norm(inputs)
        with fast_norms(norm) as found:
            ours = norm(inputs)
    assert found == 1
    assert ours.isnan().equal(stock.isnan())
    assert (ours - stock).nan_to_num().abs().max() < 1e-5
