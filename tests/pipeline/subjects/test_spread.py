"""Models that accelerate spreads: over devices, or kept where they are not run."""

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.loading.model_loading import load_language_model
from tests.pipeline.subjects.families import FAMILIES, activations, random_model, token_batch

KINDS = ("mlp", "attn", "residual", "attn_out", "mlp_out", "directions:d")
MODULES = [f"layers.{layer}.{kind}" for layer in (0, 1) for kind in KINDS]
BATCH = token_batch([7, 4, 7])


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    import numpy as np

    np.save(tmp_path / "d.npy", np.random.default_rng(0).normal(size=(3, 16)))
    return Subject(model="x", modules=MODULES, directions={"d": {"path": str(tmp_path / "d.npy")}})  # type: ignore[dict-item]


@pytest.mark.parametrize("memory", [10**9, 45_000], ids=["one place", "memory and disk"])
def test_device_map_places_the_same_model(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    have = lambda limits=None: {"cpu": memory}  # noqa: E731
    monkeypatch.setattr("transformers.integrations.accelerate.accelerate_max_memory", have)
    spread = load_language_model(str(tiny_llama), "float32" if memory < 10**9 else "auto", device_map=True)
    places = set(getattr(spread.model, "hf_device_map", {}).values())
    assert ("disk" in places) == (memory < 10**9)
    modules = [f"layers.1.{kind}" for kind in KINDS[:-1]]
    expected = activations(load_language_model(str(tiny_llama)).model, modules, BATCH)
    for name, found in activations(spread.model, modules, BATCH).items():
        torch.testing.assert_close(found, expected[name])


def test_device_map_is_not_for_one_device(tiny_llama: Path) -> None:
    with pytest.raises(UserError, match=r"device_map = true.*device = 'cpu'.*device = \"auto\""):
        load_language_model(str(tiny_llama), device="cpu", device_map=True)


@pytest.mark.parametrize("name", ["gpt2", "gemma2", "bert"])
def test_weights_that_are_fetched_only_when_they_are_used_give_the_same(name: str, subject: Subject) -> None:
    model = random_model(FAMILIES[name].config())
    expected = activations(model, MODULES, BATCH, subject=subject)
    vectors = vectors_of(model, subject)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert {weight.device.type for weight in model.base_model.parameters()} == {"meta"}
    for module, found in activations(model, MODULES, BATCH, subject=subject).items():
        torch.testing.assert_close(found, expected[module])
    torch.testing.assert_close(vectors_of(model, subject), vectors)


def vectors_of(model: Any, subject: Subject) -> dict[str, Any]:
    sites = find_hook_points(model.base_model, ["layers.0.mlp", "layers.0.residual"], subject)
    found = {name: site.vectors() for name, site in sites.items() if site.vectors is not None}
    return {name: (one.reads, one.writes) for name, one in found.items()}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_model_on_two_devices_gives_what_it_gives_on_one(subject: Subject) -> None:
    model = random_model(FAMILIES["llama"].config())
    expected = activations(model, MODULES, BATCH, subject=subject)
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 1}
    accelerate.dispatch_model(model, places | {"model.norm": 1, "lm_head": 1})
    source = ModelActivations(model.base_model, find_hook_points(model.base_model, MODULES, subject))
    source.run(BATCH, lambda module, found: torch.testing.assert_close(found.cpu(), expected[module]))
