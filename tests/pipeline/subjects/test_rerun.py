"""Activations on chosen sequences are those of the model, whatever else is run beside them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.subjects.activation_sources import ModelActivations, activations_on, find_hook_points
from pipeline.subjects.activations import ModuleUnits, Receive, SparseActivations, TokenBatch
from pipeline.subjects.loading.model_loading import load_language_model

MODULES = ["layers.0.mlp", "layers.1.mlp"]
SEQUENCES = [(seq_id, [(7 * seq_id + place) % 300 for place in range(3 + seq_id % 4)]) for seq_id in range(11)]


class OneHot:
    """A sparse source: at a token t, unit t % 5 has the activation t and unit t % 5 + 1 has -1."""

    modules: Mapping[str, ModuleUnits] = {"x": ModuleUnits(6, sparse=True), "y": ModuleUnits(6, sparse=True)}

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        tokens = torch.from_numpy(batch.token_ids).flatten()
        self.shapes.append(batch.token_ids.shape)
        units = torch.stack([tokens % 5, tokens % 5 + 1], dim=1).flatten()
        values = torch.stack([tokens.float(), torch.full_like(tokens, -1).float()], dim=1).flatten()
        positions = torch.arange(len(tokens)).repeat_interleave(2)
        for module, factor in (("x", 1.0), ("y", 100.0)):
            receive(module, SparseActivations((*batch.token_ids.shape, 6), positions, units, factor * values))


@pytest.fixture(scope="module")
def source(tiny_llama: Path) -> ModelActivations:
    model = load_language_model(str(tiny_llama), device="cpu").model.base_model
    return ModelActivations(model, find_hook_points(model, MODULES))


def test_they_are_those_of_the_model_run_by_hand(source: ModelActivations) -> None:
    units = [9, 0, 17]
    found = activations_on(source, "layers.1.mlp", units, SEQUENCES, 4)
    assert list(found) == sorted(found, key=lambda seq_id: (len(SEQUENCES[seq_id][1]), seq_id))
    seen: dict[str, torch.Tensor] = {}
    hook = source.base_model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda _, inputs: seen.update(x=inputs[0])
    )
    for seq_id, ids in SEQUENCES:
        with torch.inference_mode():
            source.base_model(input_ids=torch.tensor([ids]))
        np.testing.assert_allclose(found[seq_id], seen["x"][0][:, units].numpy(), atol=1e-6)
    hook.remove()


def test_other_sequences_change_no_bit(source: ModelActivations) -> None:
    everything = activations_on(source, "layers.0.mlp", [3, 4], SEQUENCES, 4)
    for seq_id, ids in SEQUENCES:
        alone = activations_on(source, "layers.0.mlp", [4], [(seq_id, ids)], 4)
        assert np.array_equal(alone[seq_id][:, 0], everything[seq_id][:, 1])


def test_sparse_activations_are_zero_where_nothing_is_given() -> None:
    source = OneHot()
    found = activations_on(source, "x", [5, 1, 0], SEQUENCES, 4)
    for seq_id, ids in SEQUENCES:
        by_hand = np.zeros((len(ids), 6), np.float32)
        for place, token in enumerate(ids):
            by_hand[place, token % 5] = token
            by_hand[place, token % 5 + 1] = -1
        assert np.array_equal(found[seq_id], by_hand[:, [5, 1, 0]])
    assert {rows for rows, _ in source.shapes} == {4}


def test_nothing_is_run_for_no_sequences() -> None:
    source = OneHot()
    assert activations_on(source, "x", [1], [], 4) == {}
    assert source.shapes == []
