"""What heads move between positions, against computation by hand from the weights."""

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipeline.subjects.activation_sources import HookPoint, find_hook_points
from pipeline.subjects.kinds import heads
from pipeline.subjects.kinds.heads import attention_shares, head_movements, strongest_pairs
from tests.pipeline.subjects.families import FAMILIES, HEADS, random_model

IDS = torch.tensor([[7, 12, 33, 4, 4, 41], [9, 20, 1, 2, 3, 8]])
NAME = "layers.1.attn"


def model(name: str) -> tuple[Any, HookPoint]:
    """A random model and the heads of its second layer."""
    base_model = random_model(FAMILIES[name].config()).base_model
    return base_model, find_hook_points(base_model, [NAME])[NAME]


def values_by_hand(name: str, attention: Any, states: torch.Tensor) -> torch.Tensor:
    """(B, T, H, E) values of all heads from the input of attention."""
    if name == "llama":  # two heads of keys and values, each for two heads
        return torch.as_tensor(attention.v_proj(states)).reshape(2, 6, 2, 4).repeat_interleave(2, dim=2)
    if name in ("gpt_neo", "gptj"):
        return torch.as_tensor(attention.v_proj(states)).reshape(2, 6, 4, 4)
    fused = torch.as_tensor(getattr(attention, FUSED.get(name, "query_key_value"))(states))
    if name in FUSED:
        return fused[..., 32:].reshape(2, 6, 4, 4)
    if name == "falcon":  # one head of keys and values behind all queries
        return fused[..., 20:].reshape(2, 6, 1, 4).expand(-1, -1, 4, -1)
    if name == "falcon of 40B":  # twice: two heads of queries, one of keys, one of values
        return fused.reshape(2, 6, 2, 4, 4)[:, :, :, 3].repeat_interleave(2, dim=2)
    return fused.reshape(2, 6, 4, 12)[..., 8:]


FUSED = {"gpt2": "c_attn", "mpt": "Wqkv"}
BY_HAND = ("gpt2", "llama", "gpt_neox", "gpt_neo", "gptj", "bloom", "falcon", "falcon of 40B", "mpt")


@pytest.mark.parametrize("name", BY_HAND)
def test_a_pair_is_the_norm_of_what_the_head_moves_between_its_positions(name: str) -> None:
    base_model, site = model(name)
    writes = head_movements(base_model, site, {"input_ids": IDS})
    assert writes is not None
    attention = base_model.get_submodule(f"{FAMILIES[name].layers}.1.{FAMILIES[name].o_proj.rpartition('.')[0]}")
    states: list[torch.Tensor] = []
    attention.register_forward_pre_hook(
        lambda _, xs, named: states.append(named["hidden_states"] if not xs else xs[0]), with_kwargs=True
    )
    base_model.config._attn_implementation = "eager"
    shares = base_model(IDS, output_attentions=True).attentions[1]
    values = values_by_hand(name, attention, states[0])
    for sequence in range(2):
        for head in range(HEADS):
            sizes = writes.pairs(sequence, head)
            for to in range(6):
                for source in range(6):
                    moved = torch.zeros(4, 4)
                    moved[head] = shares[sequence, head, to, source] * values[sequence, source, head]
                    silent = site.module(torch.zeros(1, 1, 16))
                    written = site.module(moved.view(1, 1, 16)) - silent
                    assert float(sizes[to, source]) == pytest.approx(float(written.norm()), rel=1e-3, abs=1e-5)
            assert not sizes.triu(1).any(), "nothing comes from later positions"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_pairs_of_a_position_add_up_to_all_that_the_head_writes_there(name: str) -> None:
    base_model, site = model(name)
    writes = head_movements(base_model, site, {"input_ids": IDS})
    assert writes is not None
    inputs: list[torch.Tensor] = []
    site.module.register_forward_pre_hook(lambda _, xs: inputs.append(xs[0]))
    base_model(IDS)
    for head in range(HEADS):
        own = torch.zeros_like(inputs[0].view(2, 6, HEADS, -1))
        own[:, :, head] = inputs[0].view(2, 6, HEADS, -1)[:, :, head]
        whole = site.module(own.view(inputs[0].shape)) - site.module(torch.zeros_like(inputs[0]))
        parts = writes.values[:, head] @ writes.output[:, head].T  # (B, T, D)
        torch.testing.assert_close(writes.attention[:, head] @ parts, whole.view(2, 6, -1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_padded_batch_agrees_with_single_sequences_and_the_model_is_left_as_it_was(name: str) -> None:
    base_model, site = model(name)
    before, outputs = base_model.config._attn_implementation, base_model(IDS).last_hidden_state
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    together = head_movements(base_model, site, {"input_ids": IDS * mask, "attention_mask": mask})
    alone = head_movements(base_model, site, {"input_ids": IDS[1:, :4]})
    assert together is not None
    assert alone is not None
    torch.testing.assert_close(together.pairs(1, 1)[:4, :4], alone.pairs(0, 1), rtol=1e-3, atol=1e-5)
    assert base_model.config._attn_implementation == before
    torch.testing.assert_close(base_model(IDS).last_hidden_state, outputs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon", "bert"])
def test_attention_by_other_kernels_is_computed_in_the_plain_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base_model, site = model(name)
    before, usual = base_model.config._attn_implementation, head_movements(base_model, site, {"input_ids": IDS})
    monkeypatch.setattr(heads, "SEEN", ())
    plain = head_movements(base_model, site, {"input_ids": IDS})
    assert usual is not None
    assert plain is not None
    torch.testing.assert_close(plain.pairs(1, 2), usual.pairs(1, 2), rtol=1e-3, atol=1e-5)
    assert base_model.config._attn_implementation == before


@pytest.mark.parametrize(("causal", "mask"), [(True, "none"), (False, "none"), (False, "bool"), (False, "float")])
def test_shares_are_those_of_torch_s_attention(causal: bool, mask: str) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 3)
    given = {"none": None, "bool": torch.rand(2, 1, 5, 5) > 0.3, "float": torch.randn(2, 1, 5, 5)}[mask]
    expected = scaled_dot_product_attention(query, key, value, given, is_causal=causal, scale=0.7, enable_gqa=True)
    shares = attention_shares(query, key, given, is_causal=causal, scale=0.7, enable_gqa=True)
    torch.testing.assert_close(shares @ value.repeat_interleave(2, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_attention_that_is_changed_before_it_is_projected_has_none() -> None:
    base_model, site = model("llama")
    assert head_movements(base_model, HookPoint(NAME, site.module, 8), {"input_ids": IDS}) is None
    gate = site.module.register_forward_pre_hook(lambda _, xs: (xs[0] * 0.5,))
    assert head_movements(base_model, site, {"input_ids": IDS}) is None
    gate.remove()
    assert head_movements(base_model, site, {"input_ids": IDS}) is not None


def test_the_strongest_pairs_are_named_from_and_to_without_positions_that_do_not_count() -> None:
    sizes = torch.tensor([[9.0, 0, 0, 0], [1.0, 3.0, 0, 0], [8.0, 2.0, 3.0, 0], [9.0, 9.0, 9.0, 9.0]])
    counted = torch.tensor([False, True, True])
    assert strongest_pairs(sizes, counted, 8) == [(1, 1, 3.0), (2, 2, 3.0), (1, 2, 2.0)]
    assert strongest_pairs(sizes, counted, 1) == [(1, 1, 3.0)]
    assert strongest_pairs(sizes, torch.tensor([True, True, True]), 2) == [(0, 0, 9.0), (0, 2, 8.0)]
