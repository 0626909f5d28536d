"""Module names lead to sites, and a wrong name is told with what there is."""

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import find_hook_points
from tests.pipeline.subjects.families import FAMILIES, HEADS, HIDDEN, activations, layer, random_model, token_batch


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(FAMILIES["llama"].config())


def test_sites_come_in_the_order_of_the_run_file(model: Any) -> None:
    names = ["layers.1.mlp", "layers.0.residual", "layers.0.attn", "layers.0.mlp"]
    sites = find_hook_points(model.base_model, names)
    assert list(sites) == names
    assert [site.width for site in sites.values()] == [24, HIDDEN, HEADS, 24]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_of_eight_agrees_with_single_sequences(name: str) -> None:
    model = random_model(FAMILIES[name].config())
    modules = [f"layers.1.{kind}" for kind in ("mlp", "attn", "residual", "attn_out", "mlp_out")]
    lengths = [9, 4, 9, 7, 2, 9, 5, 8]
    batch = token_batch(lengths)
    together = activations(model, modules, batch)
    for row, length in enumerate(lengths):
        single = type(batch)(
            batch.token_ids[row : row + 1, :length], batch.lengths[row : row + 1], batch.seq_ids[row : row + 1]
        )
        for module, found in activations(model, modules, single).items():
            torch.testing.assert_close(together[module][row, :length], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_are_those_of_a_plain_hook_on_the_stock_model_bit_for_bit(name: str) -> None:
    family = FAMILIES[name]
    model, batch = random_model(family.config()), token_batch([9] * 5)
    parts = {
        "mlp": find_hook_points(model.base_model, ["layers.1.mlp"])["layers.1.mlp"].module,
        "residual": layer(model, family, 1),
    }
    plain: dict[str, torch.Tensor] = {}
    parts["mlp"].register_forward_pre_hook(lambda _, inputs: plain.__setitem__("mlp", inputs[0]))
    parts["residual"].register_forward_hook(
        lambda _, __, output: plain.__setitem__("residual", output if isinstance(output, torch.Tensor) else output[0])
    )
    with torch.inference_mode():
        model.base_model(torch.from_numpy(batch.token_ids))
    for kind, found in plain.items():
        (recorded,) = activations(model, [f"layers.1.{kind}"], batch).values()
        assert torch.equal(recorded, found.reshape(recorded.shape))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pass_ends_behind_the_last_recorded_site(name: str) -> None:
    family = FAMILIES[name]
    model = random_model(family.config())
    ran: list[int] = []
    for number in (0, 1):
        layer(model, family, number).register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    kinds = ("mlp", "attn", "residual", "attn_out", "mlp_out")
    activations(model, [f"layers.0.{kind}" for kind in kinds], token_batch([6, 4]))
    assert ran == [0]
    activations(model, ["layers.0.mlp", "layers.1.attn"], token_batch([6, 4]))
    assert ran == [0, 0, 1]


def test_dimensions_are_written_and_read_along_the_axes(model: Any) -> None:
    sites = find_hook_points(model.base_model, ["layers.0.residual", "layers.0.attn_out", "layers.0.mlp_out"])
    for name, site in sites.items():
        assert site.vectors is not None
        vectors = site.vectors()
        assert vectors.writes is not None
        assert torch.equal(vectors.writes, torch.eye(HIDDEN))
        assert (vectors.reads is None) == (name != "layers.0.residual")


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("layers.2.mlp", ["layers.2.mlp", "has 2 layers", "layers.0.mlp to layers.1.mlp"]),
        ("layers.7.attn_out", ["layers.0.attn_out to layers.1.attn_out"]),
        ("layers.0.heads", ["'layers.0.heads'", "layers.0.mlp to layers.1.mlp", "attn_out", "directions:NAME"]),
        ("layers.0.residual_in", ["'layers.0.residual_in'", "place of mlp: attn, residual, attn_out"]),
        ("layers.0.directions", ["'layers.0.directions'", "directions:NAME"]),
        ("layers.0.mlp:x", ["'layers.0.mlp:x'", "directions:NAME"]),
        ("layers.0.directions:x", ["names 'x'", "no [subject.directions]"]),
        ("mlp", ["'mlp'", "layers.0.mlp"]),
        ("layers.-1.mlp", ["layers.-1.mlp", "allowed"]),
        ("layers.01.mlp", ["layers.1.mlp instead of"]),
        ("layers.99999999999999999999.mlp", ["has 2 layers"]),
    ],
)
def test_a_wrong_name_is_told_with_what_is_allowed(model: Any, module: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        find_hook_points(model.base_model, [module])
    for part in says:
        assert part in str(caught.value)


def test_directions_of_another_name_are_told_with_those_there_are(model: Any) -> None:
    subject = Subject(
        model="tiny",
        modules=["x"],
        directions={name: {"path": "v.npy"} for name in ("probe", "steer")},  # type: ignore[misc]
    )
    with pytest.raises(
        UserError, match=r"names 'x', which subject\.directions does not describe; allowed: probe, steer"
    ):
        find_hook_points(model.base_model, ["layers.0.directions:x"], subject)


def test_a_module_named_twice_is_told(model: Any) -> None:
    with pytest.raises(UserError, match=r"layers\.1\.mlp more than once"):
        find_hook_points(model.base_model, ["layers.1.mlp", "layers.0.mlp", "layers.1.mlp"])


def test_a_model_without_layers_is_told() -> None:
    with pytest.raises(UserError, match="layers of a Linear were not found"):
        find_hook_points(nn.Linear(2, 2), ["layers.0.mlp"])
