"""What heads move between positions, against computation by hand from the weights."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.subjects.attention_pairs import head_writes, strongest_pairs
from pipeline.subjects.sites import Site
from tests.pipeline.subjects.test_sites import CONFIGS

IDS = torch.tensor([[7, 12, 33, 4, 4, 41], [9, 20, 1, 2, 3, 8]])
PROJECTIONS = {
    "gpt2": "h.1.attn.c_proj",
    "llama": "layers.1.self_attn.o_proj",
    "gpt_neox": "layers.1.attention.dense",
    "gemma3": "layers.1.self_attn.o_proj",
    "opt": "decoder.layers.1.self_attn.out_proj",
}


def model(name: str) -> tuple[Any, Site]:
    """A random model and the heads of its second layer."""
    config, _, _ = CONFIGS[name]()
    config.initializer_range = 0.4
    torch.manual_seed(3)
    base_model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False).base_model
    return base_model, Site("layers.1.attn", base_model.get_submodule(PROJECTIONS[name]), 2)


def values_by_hand(name: str, attention: Any, states: torch.Tensor) -> torch.Tensor:
    """(B, T, H, E) values of both heads from the input of attention."""
    if name == "gpt2":
        return attention.c_attn(states)[..., 32:].unflatten(-1, (2, 8))
    if name == "llama":  # one head of keys and values, shared by both
        return attention.v_proj(states).unflatten(-1, (1, 8)).expand(-1, -1, 2, -1)
    return attention.query_key_value(states).unflatten(-1, (2, 24))[..., 16:]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox"])
def test_a_pair_is_the_norm_of_what_the_head_moves_between_its_positions(name: str) -> None:
    base_model, site = model(name)
    writes = head_writes(base_model, site, {"input_ids": IDS})
    assert writes is not None
    attention = base_model.get_submodule(PROJECTIONS[name].rpartition(".")[0])
    states: list[torch.Tensor] = []
    attention.register_forward_pre_hook(
        lambda _, xs, named: states.append(named["hidden_states"] if not xs else xs[0]), with_kwargs=True
    )
    base_model.set_attn_implementation("eager")
    shares = base_model(IDS, output_attentions=True).attentions[1]
    values = values_by_hand(name, attention, states[0])
    for sequence in range(2):
        for head in range(2):
            sizes = writes.pairs(sequence, head)
            for to in range(6):
                for source in range(6):
                    moved = torch.zeros(2, 8)
                    moved[head] = shares[sequence, head, to, source] * values[sequence, source, head]
                    silent = site.module(torch.zeros(1, 1, 16))
                    written = site.module(moved.view(1, 1, 16)) - silent
                    assert float(sizes[to, source]) == pytest.approx(float(written.norm()), rel=1e-3, abs=1e-5)
            assert not sizes.triu(1).any(), "nothing comes from later positions"


@pytest.mark.parametrize("name", PROJECTIONS)
def test_the_pairs_of_a_position_add_up_to_all_that_the_head_writes_there(name: str) -> None:
    base_model, site = model(name)
    writes = head_writes(base_model, site, {"input_ids": IDS})
    assert writes is not None
    inputs: list[torch.Tensor] = []
    site.module.register_forward_pre_hook(lambda _, xs: inputs.append(xs[0]))
    base_model(IDS)
    for head in range(2):
        own = torch.zeros_like(inputs[0].view(2, 6, 2, -1))
        own[:, :, head] = inputs[0].view(2, 6, 2, -1)[:, :, head]
        whole = site.module(own.view(inputs[0].shape)) - site.module(torch.zeros_like(inputs[0]))
        parts = writes.values[:, head] @ writes.output[:, head].T  # (B, T, D)
        torch.testing.assert_close(writes.attention[:, head] @ parts, whole.view(2, 6, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_padded_batch_agrees_with_single_sequences_and_the_model_is_left_as_it_was(name: str) -> None:
    base_model, site = model(name)
    before, outputs = base_model.config._attn_implementation, base_model(IDS).last_hidden_state
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    together = head_writes(base_model, site, {"input_ids": IDS * mask, "attention_mask": mask})
    alone = head_writes(base_model, site, {"input_ids": IDS[1:, :4]})
    assert together is not None
    assert alone is not None
    torch.testing.assert_close(together.pairs(1, 1)[:4, :4], alone.pairs(0, 1), rtol=1e-3, atol=1e-5)
    assert base_model.config._attn_implementation == before
    torch.testing.assert_close(base_model(IDS).last_hidden_state, outputs, rtol=0, atol=0)


def test_models_that_do_not_call_the_interface_or_change_what_was_mixed_have_none() -> None:
    config, _, _ = CONFIGS["gptj"]()
    old = AutoModelForCausalLM.from_config(config).eval().base_model
    site = Site("layers.0.attn", old.h[0].attn.out_proj, 2)
    assert head_writes(old, site, {"input_ids": IDS}) is None
    base_model, site = model("llama")
    assert head_writes(base_model, Site("layers.1.attn", site.module, 4), {"input_ids": IDS}) is None
    gate = site.module.register_forward_pre_hook(lambda _, xs: (xs[0] * 0.5,))
    assert head_writes(base_model, site, {"input_ids": IDS}) is None
    gate.remove()
    assert head_writes(base_model, site, {"input_ids": IDS}) is not None


def test_the_strongest_pairs_are_named_from_and_to_without_positions_that_do_not_count() -> None:
    sizes = torch.tensor([[9.0, 0, 0, 0], [1.0, 3.0, 0, 0], [8.0, 2.0, 3.0, 0], [9.0, 9.0, 9.0, 9.0]])
    counted = torch.tensor([False, True, True])
    assert strongest_pairs(sizes, counted, 8) == [(1, 1, 3.0), (2, 2, 3.0), (1, 2, 2.0)]
    assert strongest_pairs(sizes, counted, 1) == [(1, 1, 3.0)]
    assert strongest_pairs(sizes, torch.tensor([True, True, True]), 2) == [(0, 0, 9.0), (0, 2, 8.0)]
