"""Units of every kind that a model's weights have go through the whole pipeline to a score."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import save_file
from transformers import Gemma2Config, Gemma2ForCausalLM

from tests.integration.byte_tokenizer import byte_tokenizer
from tests.integration.reduced import call

pytestmark = pytest.mark.slow

TEXT = "the red house and a green door stood by blue water while seven birds sang of summer in old trees"
KINDS = {
    "layers.1.mlp": 24, "layers.1.attn": 4, "layers.0.residual": 16, "layers.1.attn_out": 16, "layers.1.mlp_out": 16,
    "layers.1.directions:probe": 3,
}  # fmt: skip
RUN_FILE = """
[run]
name = "kinds"
folder = "{folder}"

[subject]
model = "{folder}/model"
modules = {modules}

[subject.directions.probe]
path = "{folder}/layer-{{layer}}.safetensors"
key = "probe"

[corpus]
source = "{folder}/texts.txt"
seq_len = 24
min_tokens = 5

[record]
top = {{ explain = 6, select = 4, report = 4 }}
random = {{ explain = 6, select = 4, report = 4 }}
batch_size = 4
shard_sequences = 80

[explain]
units = 2
candidates = 2
polarities = ["+", "-"]
shard_units = 2

[simulate]
controls = 2
shard_units = 2
"""


def save_model(folder: Path, texts: list[str]) -> None:
    """A random Gemma 2 of two layers, and a byte-level tokenizer trained on the texts."""
    fast = byte_tokenizer(texts, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = Gemma2Config(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        vocab_size=len(fast), max_position_embeddings=64, initializer_range=0.5, bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a model, a corpus and directions made here."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(TEXT.split(), size=rng.integers(10, 40))) + "." for _ in range(120)]
    (folder / "texts.txt").write_text("\n\n".join(texts))
    save_model(folder / "model", texts)
    save_file({"probe": rng.normal(size=(3, 16)).astype(np.float32)}, folder / "layer-1.safetensors")
    file = folder / "kinds.toml"
    file.write_text(RUN_FILE.format(folder=folder, modules=json.dumps(list(KINDS))))
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    return folder / "kinds"


def test_every_unit_is_recorded(root: Path) -> None:
    units = pd.read_parquet(root / "units")
    assert units.groupby("module", sort=False).size().to_dict() == KINDS
    assert (units["variance"] > 0).all()
    lowest = units.groupby("module")["min"].min()
    assert lowest["layers.1.attn"] >= 0
    assert (lowest.drop("layers.1.attn") < 0).all()


def test_every_kind_is_explained_simulated_and_scored(root: Path) -> None:
    scores = pd.read_parquet(root / "scores").query("status != 'not_selected'")
    signed = [module for module in KINDS if not module.endswith(".attn")]
    expected = {(module, "+"): 2 for module in KINDS} | {(module, "-"): 2 for module in signed}
    assert scores.groupby(["module", "polarity"], sort=False).size().to_dict() == expected
    assert set(scores["status"]) <= {"ok", "undefined"}
    scored = scores.query("status == 'ok'")
    assert set(zip(scored["module"], scored["polarity"], strict=True)) == set(expected), "of each one unit has a number"
    assert scored["correlation"].between(-1, 1).all()


def test_a_score_of_the_negative_polarity_is_that_of_the_negated_activations(root: Path) -> None:
    keys = ["module", "index", "polarity", "candidate"]
    scores = pd.read_parquet(root / "scores").query("status == 'ok' and polarity == '-'")
    simulations = pd.read_parquet(root / "simulations").query("status == 'ok' and control == ''").set_index(keys)
    exemplars = pd.read_parquet(root / "exemplars").query("split == 'report' and band == 'random' and polarity == '-'")
    compared = 0
    for row in scores.to_dict("records"):
        predicted = simulations.loc[[tuple(row[key] for key in keys)]].set_index("seq_id")["expected"]
        about = exemplars.query("module == @row['module'] and index == @row['index']").set_index("seq_id")[
            "activations"
        ]
        real = np.concatenate([np.asarray(about[seq_id], np.float64) for seq_id in about.index])
        simulated = np.concatenate([np.asarray(predicted[seq_id], np.float64) for seq_id in about.index])
        known = np.isfinite(real) & np.isfinite(simulated)
        if np.std(simulated[known]):
            correlation = np.corrcoef(-real[known], simulated[known])[0, 1]
            assert row["correlation_random"] == pytest.approx(correlation, abs=1e-3)
            compared += abs(correlation) > 0.01
    assert compared >= 3


def test_exemplars_hold_projections_of_the_stream_that_the_model_has_by_itself(root: Path) -> None:
    model = Gemma2ForCausalLM.from_pretrained(root.parent / "model").eval()
    corpus = pd.read_parquet(root / "corpus").set_index("seq_id")["token_ids"]
    exemplars = pd.read_parquet(root / "exemplars").query("index == 1")
    for row in exemplars.query("module == 'layers.0.residual'").sample(4, random_state=0).to_dict("records"):
        with torch.inference_mode():
            hidden = model(torch.tensor([corpus[row["seq_id"]].tolist()]), output_hidden_states=True).hidden_states
        by_hand = hidden[1][0, :, 1].numpy()
        counted = pd.notna(row["activations"])
        np.testing.assert_allclose(np.asarray(row["activations"])[counted], by_hand[counted], rtol=1e-3, atol=1e-4)
