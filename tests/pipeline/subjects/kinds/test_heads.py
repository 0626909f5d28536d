"""The activation of a head is the norm of what it writes, in every family."""

import pytest
import torch

from pipeline.errors import UserError
from pipeline.subjects.activation_sources import find_hook_points
from pipeline.subjects.kinds.heads import HeadWrites
from tests.pipeline.subjects.families import FAMILIES, HEADS, activations, layer, random_model, seen_by, token_batch

BATCH = token_batch([6, 6, 6])


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_are_as_strong_as_what_they_write_by_hand(name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    found = activations(model, ["layers.1.attn"], BATCH)["layers.1.attn"]
    projection = layer(model, family, 1).get_submodule(family.o_proj)
    z = seen_by(model, family, BATCH, family.o_proj)
    size = z.shape[-1] // HEADS
    bias = projection(torch.zeros_like(z))
    writes = []
    for head in range(HEADS):
        alone = torch.zeros_like(z)
        alone[..., head * size : (head + 1) * size] = z[..., head * size : (head + 1) * size]
        writes.append(projection(alone) - bias)
    torch.testing.assert_close(found, torch.stack([write.norm(dim=-1) for write in writes], dim=-1))
    torch.testing.assert_close(sum(writes) + bias, projection(z))
    assert (found > 0).all()


@pytest.mark.parametrize(("heads", "size", "width"), [(3, 8, 24), (2, 16, 8)], ids=["narrow heads", "wide heads"])
def test_the_norm_is_exact_to_float32_rounding_where_a_head_writes_almost_nothing(
    heads: int, size: int, width: int
) -> None:
    """The Gram matrix would lose half of the digits."""
    torch.manual_seed(0)
    projection = torch.nn.Linear(heads * size, width).requires_grad_(False)
    z = torch.randn(2, 5, heads * size)
    blocks = projection.weight.view(width, heads, size)
    blocks[:, :, 0] = -blocks[:, :, 1:].sum(dim=2)  # a head whose numbers are all equal writes nothing
    z[0, 0] = 1.0 + 1e-5 * z[0, 0]
    exact = torch.einsum("btha,dha->bthd", z.double().view(2, 5, heads, size), blocks.double()).norm(dim=-1)
    found = HeadWrites(projection, heads)(z)
    assert found.dtype == torch.float32
    assert exact[0, 0].max() < 1e-3 * exact[0, 1].min()
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=2e-6)


def test_heads_are_never_negative_and_have_no_vectors_of_their_own() -> None:
    site = find_hook_points(random_model(FAMILIES["gemma"].config()).base_model, ["layers.0.attn"])["layers.0.attn"]
    assert (site.width, site.signed, site.vectors) == (HEADS, False, None)


def test_heads_that_cannot_be_told_apart_are_told() -> None:
    base = random_model(FAMILIES["llama"].config()).base_model
    base.config.num_attention_heads = 3
    with pytest.raises(UserError, match=r"num_attention_heads = 3 does not divide the 16 inputs.*layers\.0\.attn_out"):
        find_hook_points(base, ["layers.0.attn"])
