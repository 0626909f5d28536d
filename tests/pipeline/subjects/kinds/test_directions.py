"""Directions come from any of three kinds of file, and what is wrong with one is told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import Directions, Subject
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import HookPoint, find_hook_points
from tests.pipeline.subjects.families import FAMILIES, HIDDEN, activations, random_model, token_batch

BATCH = token_batch([6, 6])
NAME = "layers.1.directions:probe"
MATRIX = np.random.default_rng(0).normal(size=(5, HIDDEN)).astype(np.float32)
FAMILY = FAMILIES["llama"]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(FAMILY.config())


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def any_model(request: pytest.FixtureRequest) -> Any:
    return random_model(FAMILIES[request.param].config())


def subject(path: Path | str, **settings: Any) -> Subject:
    found = Directions(path=str(path), **settings)
    return Subject(model="tiny", modules=[NAME], directions={"probe": found})


def write(file: Path, arrays: dict[str, Any]) -> Path:
    if file.suffix == ".safetensors":
        save_file({key: torch.as_tensor(array).clone() for key, array in arrays.items()}, file)
    elif file.suffix == ".npz":
        np.savez(file, **arrays)
    else:
        np.save(file, next(iter(arrays.values())))
    return file


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "npy"])
@pytest.mark.parametrize("reads", ["residual", "residual_in", "attn_out", "mlp_out"])
def test_an_activation_is_the_projection_on_the_vector(any_model: Any, tmp_path: Path, suffix: str, reads: Any) -> None:
    file = write(tmp_path / f"v.{suffix}", {"v": 3 * MATRIX})
    found = activations(any_model, [NAME], BATCH, subject=subject(file, reads=reads))[NAME]
    kind = "layers.0.residual" if reads == "residual_in" else f"layers.1.{reads}"
    stream = activations(any_model, [kind], BATCH)[kind]
    unit = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    torch.testing.assert_close(found, stream @ torch.from_numpy(unit).T, rtol=1e-4, atol=1e-5)


def test_neurons_can_be_projected_too(any_model: Any, tmp_path: Path) -> None:
    width = find_hook_points(any_model.base_model, ["layers.1.mlp"])["layers.1.mlp"].width
    vectors = np.random.default_rng(1).normal(size=(3, width))
    file = write(tmp_path / "v.npy", {"": vectors})
    found = activations(any_model, [NAME], BATCH, subject=subject(file, reads="mlp", normalise=False))[NAME]
    neurons = activations(any_model, ["layers.1.mlp"], BATCH)["layers.1.mlp"]
    torch.testing.assert_close(found, neurons @ torch.from_numpy(vectors).float().T, rtol=1e-4, atol=1e-5)


def site(model: Any, path: Path | str, **settings: Any) -> HookPoint:
    return find_hook_points(model.base_model, [NAME], subject(path, **settings))[NAME]


def test_the_layer_is_filled_in_in_path_and_key(model: Any, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    write(tmp_path / "1" / "v.npz", {"pc.0": MATRIX[:2], "pc.1": MATRIX[:3]})
    assert site(model, tmp_path / "{layer}" / "v.npz", key="pc.{layer}").width == 3


def test_a_single_vector_and_other_types_of_numbers_are_taken(model: Any, tmp_path: Path) -> None:
    assert site(model, write(tmp_path / "one.npy", {"": MATRIX[0]})).width == 1
    half = {"v": torch.from_numpy(MATRIX).bfloat16()}
    assert site(model, write(tmp_path / "half.safetensors", half)).width == 5
    assert site(model, write(tmp_path / "whole.npy", {"": np.eye(HIDDEN, dtype=np.int8)})).width == HIDDEN


def test_directions_read_and_write_themselves_where_they_are_projected_on_the_stream(
    model: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "v.npy", {"": MATRIX})
    raw = torch.from_numpy(MATRIX)
    expected: dict[Any, tuple[bool, bool]] = {
        "residual": (True, True), "residual_in": (True, True), "attn_out": (False, True), "mlp_out": (False, True),
        "mlp_in": (True, False),
    }  # fmt: skip
    for reads, (has_reads, has_writes) in expected.items():
        vectors = site(model, file, reads=reads, normalise=False).vectors
        assert vectors is not None
        found = vectors()
        assert (found.reads is not None, found.writes is not None) == (has_reads, has_writes)
        if found.writes is not None:
            torch.testing.assert_close(found.writes, raw)
    assert found.reads is not None
    norm = model.base_model.layers[1].post_attention_layernorm.weight
    torch.testing.assert_close(found.reads, raw * norm)


@pytest.mark.parametrize(
    ("file", "arrays", "settings", "says"),
    [
        ("v.npz", {"a": MATRIX, "b": MATRIX}, {}, ["subject.directions.probe", "holds 2 arrays", "a, b"]),
        ("v.safetensors", {"a": MATRIX, "b": MATRIX}, {"key": "c"}, ["no 'c'", "a, b"]),
        ("v.npz", {"a": MATRIX}, {"key": "layer{layer}"}, ["no 'layer1'", "one of: a"]),
        ("v.npy", {"": MATRIX.T}, {}, ["5 dimensions", "residual of layer 1 has 16", "transposed"]),
        ("v.npy", {"": MATRIX}, {"reads": "mlp"}, ["16 dimensions", "mlp of layer 1 has 24"]),
        ("v.npy", {"": MATRIX[None]}, {}, ["shape (1, 5, 16)", "(vectors, dimensions)"]),
        ("v.npy", {"": MATRIX[:0]}, {}, ["shape (0, 16)"]),
        ("v.npy", {"": MATRIX * np.nan}, {}, ["finite"]),
        ("v.npy", {"": MATRIX * [[1], [1], [0], [1], [1]]}, {}, ["vector 2 is zero", "normalise = false"]),
        ("v.npy", {"": np.asarray(["a"])}, {}, ["not numbers"]),
        ("v.npy", {"": np.asarray([{}])}, {}, ["cannot be read"]),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    model: Any, tmp_path: Path, file: str, arrays: dict[str, Any], settings: dict[str, Any], says: list[str]
) -> None:
    path = write(tmp_path / file, arrays)
    with pytest.raises(UserError) as caught:
        site(model, path, **settings)
    for words in says:
        assert words in str(caught.value)


def test_files_that_cannot_be_opened_are_told(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        site(model, tmp_path / "none.npy")
    with pytest.raises(UserError, match=r"\.safetensors, \.npz, \.npy"):
        site(model, tmp_path / "v.pt")
    for name in ("v.safetensors", "v.npz", "v.npy"):
        (tmp_path / name).write_bytes(b"not what it says")
        with pytest.raises(UserError, match="cannot be read"):
            site(model, tmp_path / name)
