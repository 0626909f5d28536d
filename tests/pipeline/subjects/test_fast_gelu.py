"""The tanh form of GELU by one kernel: the same values, and only for as long as it is asked for."""

import pytest
import torch
from transformers import GPT2Config, GPT2Model
from transformers.activations import ACT2FN

from pipeline.subjects.fast_gelu import fast_gelu
from pipeline.subjects.fused import fused


def small_model() -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=50, bos_token_id=0, eos_token_id=0)).eval()


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast"])
def test_activation_functions_give_the_same_to_rounding(name: str) -> None:
    function, inputs = ACT2FN[name], torch.linspace(-30, 30, 20001)
    expected = function(inputs)
    with fast_gelu(function) as found:
        assert found == 1
        torch.testing.assert_close(function(inputs), expected, rtol=1e-6, atol=2e-6)
    assert torch.equal(function(inputs), expected)


def test_in_bfloat16_values_are_nearer_to_the_function_than_by_steps() -> None:
    function = ACT2FN["gelu_new"]
    inputs = torch.linspace(-4, 4, 4001).bfloat16()
    exact, by_steps = function(inputs.double()), function(inputs)
    with fast_gelu(function):
        at_once = function(inputs)
    errors = [(found - exact).abs() for found in (at_once, by_steps)]
    assert bool((errors[0] <= exact.abs() * 2**-8 + 1e-6).all()), "half a step of bfloat16"
    assert errors[0].sum() < errors[1].sum()


@pytest.mark.parametrize("name", ["gelu", "silu", "relu", "quick_gelu", "gelu_pytorch_tanh"])
def test_other_functions_are_left_alone(name: str) -> None:
    with fast_gelu(ACT2FN[name]) as found:
        assert found == 0


def test_a_model_is_as_it_was_after_an_error() -> None:
    model = small_model()
    with pytest.raises(KeyError), fast_gelu(model) as found:
        assert found == 2
        raise KeyError
    assert all("forward" not in module.__dict__ for module in model.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_models_on_a_gpu_are_recorded_with_it() -> None:
    model = small_model().to("cuda")
    with torch.inference_mode():
        ids = torch.arange(20, device="cuda")[None]
        expected = model(ids).last_hidden_state
        with fused(model, {}, lambda *_: None) as finished:
            assert not finished
            assert sum("forward" in module.__dict__ for module in model.modules()) == 2
            torch.testing.assert_close(model(ids).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    assert all("forward" not in module.__dict__ for module in model.modules())
