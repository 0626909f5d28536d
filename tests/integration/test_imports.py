"""What other programs have recorded and explained becomes a run; what we have exported comes back and scores the same."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from pipeline import open_run
from pipeline.storage.by_hand import save_by_hand
from stages import TABLES
from tests.integration.reduced import call
from tests.pipeline.subjects.conftest import save_tiny_llama

OPTIONS = ("--set", "record.skip_positions=1", "--set", "simulate.controls=2", "--set", "score.bootstrap=100")
"""The first position of a sequence does not count in the exported run."""
BOTH_WAYS = ["openai", "neuronpedia"]
"""Formats that hold what an import needs when they are exported."""


def imported(name: str, folder: Path, target: Path) -> Path:
    """The run file of an imported run."""
    done = call("import", name, str(folder), "--to", str(target))
    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.strip().rsplit(" ", 1)[-1])
    assert f"are in {target}" in done.stdout
    return file


def exported(name: str, root: Path, folder: Path) -> Path:
    assert call("export", name, "--run", str(root), "--to", str(folder)).returncode == 0
    return folder


def published(root: Path) -> pd.DataFrame:
    scores = pd.read_parquet(root / "scores").query("correlation.notna() and polarity == '+'")
    return scores.set_index(["module", "index"]).sort_index()


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_an_exported_run_comes_back_and_scores_the_same(name: str, root: Path, tmp_path: Path) -> None:
    file = imported(name, exported(name, root, tmp_path / "out"), tmp_path / "back")
    status = call("status", "--config", str(file)).stdout
    lines = {line.split()[0]: line.split()[1:3] for line in status.splitlines()[2:]}
    assert lines["explain"] == lines["corpus"] == lines["record.merge"] == ["2", "0"]
    assert lines["record.scan"] == ["not", "asked"]
    done = call("run", "--config", str(file), *OPTIONS)
    assert done.returncode == 0, done.stderr
    before, after = published(root), published(tmp_path / "back")
    assert before["text"].to_dict().items() <= after["text"].to_dict().items()
    assert set(after["explainer"]) == {name}
    if name == "openai":  # where all that is exported has a score, and the same sequences make it
        assert after["n_sequences"].tolist() == before["n_sequences"].tolist()
        for column in ("correlation", "correlation_random"):
            np.testing.assert_allclose(after[column].astype(float), before[column].astype(float), atol=1e-6)
    assert call("run", "--config", str(file), *OPTIONS).stdout.count("Everything is done") == 1
    done = call("run", "--config", str(file), "--redo", "explain")
    assert (done.returncode, "import it again" in done.stderr) == (2, True)
    assert call("run", "--config", str(file), *OPTIONS, "--redo", "score").returncode == 0


@pytest.mark.slow
def test_people_and_explainers_go_on_with_an_imported_run(root: Path, tmp_path: Path) -> None:
    file = imported("openai", exported("openai", root, tmp_path / "out"), tmp_path / "back")
    module, index = published(root).index[0]
    save_by_hand(tmp_path / "back", (module, "+", int(index)), "the word 'the'")
    done = call("run", "--config", str(file), *OPTIONS, "--set", 'explain.explainer=["openai", "statistics"]')
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(tmp_path / "back" / "scores").query("status != 'not_selected'")
    counts = found.groupby("explainer").size().to_dict()
    assert counts["human"] == 1
    assert counts["statistics"] == counts["openai"] > 1


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_an_imported_run_is_opened_like_any_other(name: str, root: Path, tmp_path: Path) -> None:
    imported(name, exported(name, root, tmp_path / "out"), tmp_path / "back")
    run = open_run(tmp_path / "back")
    assert run.tables == ["corpus", "exemplars", "explanations", "token_means", "units"]
    for table in run.tables:
        assert run.table(table).columns.tolist() == TABLES[table].schema.names
        assert run.provenance(table)["inputs"]["settings"]["imported"] == name
    exemplars, corpus = run.table("exemplars"), run.table("corpus").set_index("seq_id")
    assert corpus.index.is_unique
    assert exemplars.groupby("seq_id")["split"].nunique().max() == 1
    for row in exemplars.to_dict("records"):
        assert len(row["activations"]) == len(corpus["tokens"][row["seq_id"]])
        assert row["activations"][row["peak"]] == row["max_activation"] == max(row["activations"])
    assert {("top", split) for split in ("explain", "select", "report")} <= set(
        zip(exemplars["band"], exemplars["split"], strict=True)
    )
    top = exemplars[(exemplars["band"] == "top") & (exemplars["split"] == "report")]
    for _, own in top.groupby(["module", "index"]):
        assert own.sort_values("rank")["rank"].tolist() == list(range(len(own)))
    first = exemplars.iloc[0]
    texts = corpus["tokens"][first["seq_id"]]
    kept = pd.read_parquet(root / "corpus")
    assert list(texts) in kept["tokens"].map(list).tolist()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("openai", "collated-activations"),
        ("neuronpedia", "activations/batch-N.jsonl.gz"),
        ("delphi", "explanations/HOOK_latentN.txt"),
    ],
)
def test_a_folder_of_another_layout_is_told_and_nothing_is_left(name: str, missing: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = call("import", name, str(tmp_path / "in"), "--to", str(tmp_path / "back"))
    assert done.returncode == 2
    assert missing in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


RECORD = {"tokens": ["a", " b"], "activations": [0.0, 2.0]}
NEURON = {
    "neuron_id": {"layer_index": 3, "neuron_index": 7},
    "most_positive_activation_records": [RECORD],
    "random_sample": [{"tokens": ["c"], "activations": [None]}],
}


@pytest.mark.parametrize("broken", ["{", json.dumps(NEURON), json.dumps({"neuron_id": {}}), "[]"])
def test_a_broken_neuron_record_is_named(broken: str, tmp_path: Path) -> None:
    file = tmp_path / "in" / "collated-activations" / "3" / "7.json"
    file.parent.mkdir(parents=True)
    file.write_text(broken)
    done = call("import", "openai", str(tmp_path / "in"), "--to", str(tmp_path / "back"))
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("line", ["{", '{"index": "1"}', '{"index": "1", "tokens": ["a"], "values": []}', "[]"])
def test_a_broken_batch_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "in" / "6-res-jb" / "activations" / "batch-0.jsonl.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(line.encode()))
    done = call("import", "neuronpedia", str(tmp_path / "in"), "--to", str(tmp_path / "back"))
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_no_run_can_have_is_told_before_anything_is_read(tmp_path: Path) -> None:
    done = call("import", "openai", str(tmp_path / "none"), "--to", str(tmp_path / "my run"))
    assert done.returncode == 2
    assert "'my run' cannot be the name of a run" in done.stderr


def test_units_without_explanations_are_nothing_to_score(tmp_path: Path) -> None:
    file = tmp_path / "in" / "collated-activations" / "3" / "7.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(NEURON | {"random_sample": []}))
    done = call("import", "openai", str(tmp_path / "in"), "--to", str(tmp_path / "back"))
    assert (done.returncode, "holds no explanation" in done.stderr) == (2, True)


HOOK, ROWS, LENGTH, LATENTS = "layers.1.mlp", 24, 32, 20


def write_delphi_results(folder: Path, model: Path) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Results in Delphi's layout, as its LatentCache and its pipeline write them; returns the activations (N, T, U)."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 300, (ROWS, LENGTH))
    dense = np.where(rng.random((ROWS, LENGTH, LATENTS)) < 0.05, rng.random((ROWS, LENGTH, LATENTS)), 0).astype(
        np.float16
    )
    cache = folder / "latents" / HOOK
    cache.mkdir(parents=True)
    for first, last in ((0, 9), (10, 19)):
        part = dense[:, :, first : last + 1]
        locations = np.ascontiguousarray(np.argwhere(part)).astype(np.uint16)
        arrays = {"locations": locations, "activations": part[part != 0], "tokens": tokens}
        save_file(arrays, cache / f"{first}_{last}.safetensors")
    (cache / "config.json").write_text(json.dumps({"model_name": str(model), "ctx_len": LENGTH}))
    (folder / "explanations").mkdir()
    texts = {3: "words for colours", 11: "digits", 12: "Explanation could not be parsed.", 19: "capital letters"}
    for latent, text in texts.items():
        (folder / "explanations" / f"{HOOK}_latent{latent}.txt").write_text(json.dumps(text))
    return dense


def test_a_cache_of_delphi_becomes_a_run(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "model")
    dense = write_delphi_results(tmp_path / "in", model)
    imported("delphi", tmp_path / "in", tmp_path / "back")
    run = open_run(tmp_path / "back")
    explanations = run.table("explanations").set_index("index")["text"]
    assert explanations.to_dict() == {3: "words for colours", 11: "digits", 19: "capital letters"}
    exemplars, corpus = run.table("exemplars"), run.table("corpus").set_index("seq_id")["tokens"]
    assert set(exemplars["module"]) == {"layers.1.sae:mlp"}
    for index in explanations.index:
        own = exemplars[exemplars["index"] == index]
        top = own[own["band"] == "top"].sort_values("max_activation", ascending=False)["max_activation"].tolist()
        assert top == np.sort(dense[:, :, index].max(axis=1))[::-1][: len(top)].astype(np.float32).tolist()
        known = {tuple(row) for row in dense[:, :, index].astype(np.float32).tolist()}
        assert {tuple(row) for row in own["activations"].map(list)} <= known
        assert len(own[own["band"] == "random"]) > 10
        assert all(len(corpus[row["seq_id"]]) == len(row["activations"]) for row in own.to_dict("records"))


@pytest.mark.slow
def test_an_imported_cache_of_delphi_is_scored(tmp_path: Path) -> None:
    write_delphi_results(tmp_path / "in", save_tiny_llama(tmp_path / "model"))
    file = imported("delphi", tmp_path / "in", tmp_path / "back")
    done = call("run", "--config", str(file), "--set", "simulate.controls=1", "--set", "score.bootstrap=100")
    assert done.returncode == 0, done.stderr
    scores = open_run(tmp_path / "back").scores
    assert set(scores["status"]) <= {"ok", "undefined"}
    assert scores["n_sequences"].max() > 10


def test_a_delphi_cache_without_tokens_is_told(tmp_path: Path) -> None:
    write_delphi_results(tmp_path / "in", save_tiny_llama(tmp_path / "model"))
    file = tmp_path / "in" / "latents" / HOOK / "0_9.safetensors"
    arrays = load_file(file)
    del arrays["tokens"]
    save_file(arrays, file)
    done = call("import", "delphi", str(tmp_path / "in"), "--to", str(tmp_path / "back"))
    assert done.returncode == 2
    assert str(file) in done.stderr
    assert "save_tokens" in done.stderr
