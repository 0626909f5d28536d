"""Black boxes on sentence embeddings, against their formulas by hand."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.black_boxes.concept import concept
from pipeline.black_boxes.direction import direction
from pipeline.black_boxes.ridge import ridge
from pipeline.errors import UserError
from pipeline.subjects.embedder import load_embedder

TEXTS = ["waves on the ocean", "the tax code", "a blue boat at sea"]
D = 384


def embedded(texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return load_embedder().encode(texts, many=True).astype(np.float64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("weights") / "w.npz"
    np.savez(
        file,
        w=rng.normal(size=(4, D)),
        b=np.arange(4.0),
        mean=rng.normal(size=D),
        scale=np.abs(rng.normal(size=D)) + 0.1,
        zero=np.zeros((2, D)),
        turned=np.zeros((D, 4)),
    )
    return file


def test_nearness_to_concepts_is_the_negative_distance() -> None:
    found = concept(["the sea", "taxation"])(TEXTS)
    e, c = embedded(TEXTS), embedded(["the sea", "taxation"])
    np.testing.assert_allclose(found, [[-np.linalg.norm(x - y) for y in c] for x in e], rtol=1e-6)
    assert found[2, 0] > found[1, 0]
    assert found[1, 1] > found[0, 1]
    assert concept("the sea")(TEXTS).tolist() == found[:, :1].tolist()


def test_a_linear_head_and_directions_on_an_embedding(weights: Path) -> None:
    held = np.load(weights)
    w = held["w"].astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(
        direction(str(weights), key="w", bias="b")(TEXTS), embedded(TEXTS) @ w.T + held["b"], rtol=1e-6
    )
    unit = w / np.linalg.norm(w, axis=1, keepdims=True)
    np.testing.assert_allclose(
        direction(str(weights), key="w", normalise=True)(TEXTS), embedded(TEXTS) @ unit.T, rtol=1e-6
    )


def test_one_vector_of_a_safetensors_file_is_one_unit(tmp_path: Path) -> None:
    vector = np.random.default_rng(1).normal(size=D).astype(np.float32)
    save_file({"probe": vector}, tmp_path / "probe.safetensors")
    found = direction(str(tmp_path / "probe.safetensors"))(TEXTS)
    np.testing.assert_allclose(found, embedded(TEXTS) @ vector.astype(np.float64)[:, None], rtol=1e-6)


def test_voxels_are_ridge_weights_on_standardised_features(weights: Path) -> None:
    held = {name: array.astype(np.float32).astype(np.float64) for name, array in np.load(weights).items()}
    found = ridge(str(weights), key="w", intercept="b", mean="mean", scale="scale")(TEXTS)
    wanted = (embedded(TEXTS) - held["mean"]) / held["scale"] @ held["w"].T + held["b"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_does_not_fit_is_told(weights: Path) -> None:
    path = str(weights)
    with pytest.raises(UserError, match=r"concepts = \[\]; expected words or phrases"):
        concept([])
    with pytest.raises(UserError, match=r"has 384; give a matrix \(vectors, 384\); it seems to be transposed"):
        direction(path, key="turned")
    with pytest.raises(UserError, match="vector 0 is zero"):
        direction(path, key="zero", normalise=True)
    with pytest.raises(UserError, match="holds 6 arrays; set key to one of: b, mean, scale, turned, w, zero"):
        direction(path)
    with pytest.raises(UserError, match=r"'mean' in .* holds 384 numbers; expected 4"):
        direction(path, key="w", bias="mean")
    with pytest.raises(UserError, match="no such file"):
        ridge("gone.npz")
    with pytest.raises(UserError, match="features = 'words'; allowed: embedding, hidden"):
        ridge(path, features="words")
    with pytest.raises(UserError, match="needs a model and a layer"):
        ridge(path, features="hidden")
