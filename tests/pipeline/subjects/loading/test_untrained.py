"""Copies of a subject without what it has learnt: same shapes, drawn by a seed, and told apart from the trained one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Subject
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.subjects.loading.model_loading import _load, load_subject
from pipeline.subjects.loading.model_source import model_identity
from stages.settings import SECTIONS
from tests.pipeline.subjects.conftest import save_tiny_llama


def weights_of(folder: Path, weights: str, seed: int = 0, **settings: Any) -> dict[str, torch.Tensor]:
    subject = Subject.model_validate(
        {"model": str(folder), "modules": ["layers.0.mlp"], "weights": weights, "weights_seed": seed, **settings}
    )
    return dict(load_subject(subject).model.named_parameters())


@pytest.mark.parametrize("tied", [False, True], ids=["own unembedding", "tied"])
def test_shuffled_weights_are_those_of_each_tensor_in_another_order(tied: bool, tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "model", tie_word_embeddings=tied)
    trained, shuffled, other = (
        weights_of(folder, "trained"),
        weights_of(folder, "shuffled"),
        weights_of(folder, "shuffled", 1),
    )
    assert shuffled.keys() == trained.keys()
    for name, weight in trained.items():
        assert torch.equal(shuffled[name].flatten().sort().values, weight.flatten().sort().values)
        if len(set(weight.flatten().tolist())) > 1:
            assert not torch.equal(shuffled[name], weight)
            assert not torch.equal(shuffled[name], other[name])
    again = {name: weight.clone() for name, weight in shuffled.items()}
    _load.cache_clear()
    assert all(torch.equal(weight, again[name]) for name, weight in weights_of(folder, "shuffled").items())
    assert all(torch.equal(weight, trained[name]) for name, weight in weights_of(folder, "trained").items())


def test_random_weights_are_what_the_architecture_begins_with(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "model", initializer_range=0.4)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    random, other = weights_of(folder, "random", 2), weights_of(folder, "random", 1)
    assert torch.equal(torch.get_rng_state(), before), "draws of the caller are its own"
    name = "model.layers.0.mlp.up_proj.weight"
    assert random[name].std().item() == pytest.approx(0.4, rel=0.15)
    assert not torch.equal(random[name], weights_of(folder, "trained")[name])
    assert not torch.equal(random[name], other[name])
    halves = weights_of(folder, "random", 2, dtype="bfloat16")
    assert torch.equal(halves[name], random[name].bfloat16())


def test_rows_of_such_a_subject_have_another_fingerprint_and_those_of_a_trained_one_have_theirs(
    tiny_llama: Path,
) -> None:
    def known(**settings: Any) -> dict[str, Any]:
        return model_identity(
            Subject.model_validate({"model": str(tiny_llama), "modules": ["layers.0.mlp"], **settings})
        )

    assert known().keys() == {"model", "revision", "dtype", "paths"}
    assert known(weights_seed=4) == known()
    found = [known(weights=weights, weights_seed=seed) for weights in ("random", "shuffled") for seed in (0, 1)]
    assert all(found.count(one) == 1 and one != known() for one in found)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modules": ["layers.0.mlp", "layers.*.sae:mine"]}, "has learnt from the trained model"),
        ({"modules": ["black_box:mine"]}, "outside of the model"),
        ({"modules": ["precomputed:mine"]}, "outside of the model"),
        ({"modules": ["layers.0.mlp"], "device_map": True}, "write device_map = false"),
    ],
)
def test_what_makes_no_sense_without_training_is_refused(settings: dict[str, Any], words: str) -> None:
    file = {
        "run": {"name": "r"},
        "corpus": {"source": "c.txt"},
        "subject": {"model": "m", "weights": "random", **settings},
    }
    with pytest.raises(UserError, match=words):
        parse_config(file, "r.toml", SECTIONS)


def test_quantised_weights_are_not_shuffled() -> None:
    from pipeline.subjects.loading.untrained import shuffle

    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.zeros(4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UserError, match="weight is quantised"):
        shuffle(model, 0)
