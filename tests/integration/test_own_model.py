"""A model and a corpus of one's own: a GPT-2 in a folder, records in JSONL, texts with documents of any length."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.integration.byte_tokenizer import byte_tokenizer
from tests.integration.reduced import call

TEXT = "the red house and a green door stood by blue water while seven birds sang of summer in old trees"
WORDS = TEXT.split()
RUN_FILE = """
[run]
name = "own"
folder = "{folder}"

[subject]
model = "{folder}/model"
modules = ["layers.0.mlp", "layers.1.mlp"]

[corpus]
source = "{folder}/texts"
text_field = "body"
seq_len = 24
min_tokens = 5

[record]
top = {{ explain = 6, select = 4, report = 4 }}
random = {{ explain = 6, select = 4, report = 4 }}
batch_size = 4
shard_sequences = 40

[explain]
units = 3

[simulate]
controls = 2
"""


def save_model(folder: Path, texts: list[str]) -> None:
    """A random GPT-2 of two layers, and a byte-level tokenizer trained on the texts."""
    fast = byte_tokenizer(texts, eos_token="<|endoftext|>")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(fast), n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5)
    GPT2LMHeadModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a model and a corpus made here."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(3, 60))) + "." for _ in range(120)]
    texts += ["<|endoftext|> is text here, not an end\n\ttab \u200b \U0001f426 d\u00e9j\u00e0 vu " * 3, "", "too short"]
    (folder / "texts").mkdir()
    lines = [json.dumps({"body": text, "other": 1}) for text in texts]
    (folder / "texts" / "a.jsonl").write_text("\n".join(lines[:70]))
    (folder / "texts" / "b.jsonl").write_text("\n".join(lines[70:]))
    save_model(folder / "model", texts)
    file = folder / "own.toml"
    file.write_text(RUN_FILE.format(folder=folder))
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    return folder / "own"


def test_every_unit_of_every_layer_is_recorded(own: Path) -> None:
    units = pd.read_parquet(own / "units")
    assert units.groupby("module").size().to_dict() == {"layers.0.mlp": 64, "layers.1.mlp": 64}
    assert (units["variance"] > 0).all()


def test_activations_are_those_of_the_model_run_by_hand(own: Path) -> None:
    model = GPT2LMHeadModel.from_pretrained(own.parent / "model").eval()
    corpus = pd.read_parquet(own / "corpus").set_index("seq_id")["token_ids"]
    seen: dict[str, torch.Tensor] = {}
    model.transformer.h[1].mlp.c_proj.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    exemplars = pd.read_parquet(own / "exemplars").query("module == 'layers.1.mlp' and index == 5")
    assert set(exemplars["polarity"]) == {"+", "-"}
    for row in exemplars.groupby("polarity").sample(6, random_state=0).to_dict("records"):
        with torch.no_grad():
            model(torch.tensor([corpus[row["seq_id"]].tolist()]))
        by_hand = seen["x"][0, :, 5].numpy()
        recorded = np.asarray(row["activations"], np.float32)
        assert np.isnan(recorded[0]), "the first position is skipped"
        np.testing.assert_allclose(recorded[1:], by_hand[1:], rtol=2**-11, atol=1e-5)
        directed = by_hand[1:] if row["polarity"] == "+" else -by_hand[1:]
        assert row["peak"] == 1 + directed.argmax()
        assert row["max_activation"] == pytest.approx(by_hand[row["peak"]], abs=1e-5)


def test_windows_stay_within_documents_and_hostile_text_stays_text(own: Path) -> None:
    corpus = pd.read_parquet(own / "corpus")
    assert corpus["token_ids"].str.len().between(5, 24).all()
    texts = corpus["tokens"].map("".join)
    assert texts.str.contains("<|endoftext|>", regex=False).any()
    assert not corpus["token_ids"].map(lambda ids: 0 in ids).any()


def test_explanations_are_scored(own: Path) -> None:
    scores = pd.read_parquet(own / "scores").query("status != 'not_selected'")
    assert len(scores) == 6
    assert set(scores["status"]) <= {"ok", "undefined"}
    assert (scores["status"] == "ok").sum() >= 3
