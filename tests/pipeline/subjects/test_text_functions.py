"""Modules as functions of texts: what is counted, and that a text's value is its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.subjects.loading.model_loading import load_language_model
from pipeline.subjects.text_batches import TextBatches
from pipeline.subjects.text_functions import Pool, open_text_function
from stages.settings import SECTIONS

TEXTS = [
    "fox",
    "The quick brown fox",
    "été 日本 🎉",
    "a",
    "",
    "over the lazy dog. " * 3,
    "fox",
    "Café au lait costs 12 euros",
]


def run_file(model: Path | str, modules: list[str], pool: str = "max", bos: str = "auto", **subject: Any) -> RunConfig:
    sections = {
        "run": {"name": "r", "methods": ["sasc"]},
        "subject": {"model": str(model), "modules": modules, **subject},
        "corpus": {"source": "unused", "bos": bos, "seq_len": 8, "min_tokens": 2},
        "sasc": {"pool": pool},
    }
    return parse_config(sections, "test.toml", SECTIONS)


@pytest.mark.parametrize("module", ["layers.0.mlp", "layers.1.residual", "layers.1.attn"])
def test_a_text_has_the_same_value_whatever_stands_beside_it(tiny_llama: Path, module: str) -> None:
    function = open_text_function(run_file(tiny_llama, [module]), module, "max")
    together = function.values(TEXTS)
    assert together.shape == (len(TEXTS), function.units)
    alone = np.concatenate([function.values([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    assert np.isnan(together[4]).all(), "no token, no value"
    assert np.isfinite(np.delete(together, 4, axis=0)).all()


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
@pytest.mark.parametrize("bos", ["auto", "no"])
def test_the_residual_stream_is_pooled_over_the_tokens_of_the_text_alone(
    tiny_llama: Path, pool: Pool, bos: str
) -> None:
    module = "layers.0.residual"
    found = open_text_function(run_file(tiny_llama, [module], pool, bos), module, pool).values(TEXTS)
    loaded = load_language_model(str(tiny_llama))
    for text, row in zip(TEXTS, found, strict=True):
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"][: 39 if bos == "auto" else 40]
        front = [0] if bos == "auto" else []
        if not ids:
            continue
        with torch.no_grad():
            out = loaded.model.base_model(torch.tensor([[*front, *ids]]), output_hidden_states=True)
        states = out.hidden_states[1][0, len(front) :].double().numpy()
        wanted = {"max": states.max(axis=0), "mean": states.mean(axis=0), "last": states[-1]}[pool]
        np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-6)


def test_an_encoder_reads_its_own_special_tokens_and_they_do_not_count(tmp_path: Path) -> None:
    from pipeline.subjects.embedder import DEFAULT, load_embedder

    load_embedder(DEFAULT).tokenizer.save_pretrained(tmp_path)
    config = hf.BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, architectures=["BertModel"]
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    found = open_text_function(run_file(tmp_path, ["layers.1.residual"], "mean"), "layers.1.residual", "mean").values(
        ["the red sea"]
    )
    ids = [101, *load_embedder(DEFAULT).tokenizer("the red sea", add_special_tokens=False)["input_ids"], 102]
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0, 1:-1].mean(dim=0)
    np.testing.assert_allclose(found[0], states.numpy(), rtol=1e-4, atol=1e-5)


def test_text_that_looks_like_a_special_token_is_text(tiny_llama: Path) -> None:
    batches = TextBatches(load_language_model(str(tiny_llama)).tokenizer)
    ((ids, counted),) = batches.encode(["</s>"])
    assert ids[0] == 0
    assert 1 not in ids
    assert counted == [False] + [True] * (len(ids) - 1)


def test_batches_have_a_shape_that_follows_from_their_length(tiny_llama: Path) -> None:
    batches = TextBatches(load_language_model(str(tiny_llama)).tokenizer, longest=40)
    seen = sorted(place for batch in batches.batches(TEXTS) for place in batch.places.tolist())
    assert seen == [0, 1, 2, 3, 5, 6, 7]
    for batch in batches.batches(TEXTS):
        length = batch.tokens.token_ids.shape[1]
        assert batch.tokens.token_ids.shape[0] == batches.rows(length)
        assert (batch.tokens.lengths <= length).all()
        assert not batch.counted[np.arange(length) >= batch.tokens.lengths[:, None]].any()
    (long,) = batches.batches(["x" * 500])
    assert long.tokens.lengths[0] == 40, "longer texts are cut"


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = """
import itertools
import numpy as np
calls = itertools.count()
def lengths(texts): return [[len(text), 1.0] for text in texts]
def worse(texts): return [len(text) + (next(calls) > 100 and "\\u00e9" in text) for text in texts]
"""
    (tmp_path / "text_functions_of_test.py").write_text(source)


@pytest.mark.usefixtures("functions")
def test_a_black_box_is_asked_for_whole_texts(tiny_llama: Path) -> None:
    boxes = {"f": {"call": "text_functions_of_test:lengths", "units": 2}}
    function = open_text_function(run_file("no such model", ["black_box:f"], black_boxes=boxes), "black_box:f", "max")
    assert function.units == 2
    assert function.values(TEXTS)[:, 0].tolist() == [len(text) for text in TEXTS]
    assert function.values([]).shape == (0, 2)


@pytest.mark.usefixtures("functions")
def test_a_black_box_that_changes_its_mind_is_told(tiny_llama: Path) -> None:
    boxes = {"f": {"call": "text_functions_of_test:worse"}}
    function = open_text_function(run_file(tiny_llama, ["black_box:f"], black_boxes=boxes), "black_box:f", "max")
    with pytest.raises(UserError, match="deterministic"):
        function.values([f"é{number}" for number in range(100)])


def test_a_folder_of_activations_is_no_function_of_texts(tiny_llama: Path) -> None:
    with pytest.raises(UserError, match="precomputed:made holds activations on its own sequences"):
        open_text_function(
            run_file(tiny_llama, ["precomputed:made"], precomputed={"made": "x"}), "precomputed:made", "max"
        )
