"""A unit's polarity '-' is a unit of its own with its activations turned round, or is said to be left out."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.export import export_run
from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.exports.exported_run import ExportedRun
from pipeline.results.run_folder import open_run
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, UNIT_TOKENS, UNITS, TableSchema
from pipeline.storage.shards import publish

MODULE, BOX = "layers.2.mlp", "black_box:length"
ACTIVATIONS = {"+": [None, 0.5, 4.0], "-": [None, -3.0, 1.0]}
METHODS = [MethodReport("scores", "", lambda *_: "")]
Row = dict[str, Any]


def entry(token: str, name: str, value: float) -> Row:
    return {"token_id": 1, "token": token, name: value}


def made_run(root: Path, explained: dict[tuple[str, int], str]) -> Path:
    """A run whose units 0 and 1 of a layer and of a black box are recorded; `explained` names polarities by module and index."""
    units = [(module, index) for module in (MODULE, BOX) for index in (0, 1)]

    def write(table: TableSchema, rows: list[Row]) -> None:
        publish(root / table.name / "part-00000.parquet", table.of_rows(rows), table, {})

    write(CORPUS, [{"seq_id": 0, "doc_id": "a", "start": 0, "token_ids": [1, 2, 3], "tokens": ["x", "up", "down"]}])
    statistics = {
        "n_tokens": 10, "mean": 0.25, "variance": 2.0, "skewness": 0.5, "kurtosis": 3.0, "min": -3.0, "max": 4.0,
        "density": 0.2, "density_negative": 0.1, "histogram_edges": [-3.0, -1.0, 1.0, 4.0], "histogram_counts": [1, 7, 2],
        "quantile_boundaries": [0.5, 2.0], "quantile_boundaries_negative": [-2.5, -0.25],
    }  # fmt: skip
    write(UNITS, [{"module": module, "index": index, **statistics} for module, index in units])
    weights = {"promoted": [entry("up", "value", 2.0)], "suppressed": [entry("down", "value", -1.0)]}
    write(UNIT_TOKENS, [{"module": module, "index": index, **weights} for module, index in units])
    kept = [
        {"module": module, "index": index, "polarity": polarity, "band": "top", "rank": 0, "split": split, "seq_id": 0,
         "max_activation": 4.0 if polarity == "+" else -3.0, "activations": ACTIVATIONS[polarity]}
        for module, index in units for polarity in "+-" for split in ("explain", "report")
    ]  # fmt: skip
    write(EXEMPLARS, kept)
    texts = [
        {"module": module, "index": index, "polarity": polarity, "explainer": "one", "candidate": 0, "status": "ok",
         "text": f"{module} {index} {polarity}"}
        for (module, index), polarities in explained.items() for polarity in polarities
    ]  # fmt: skip
    write(EXPLANATIONS, texts)
    return root


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_neuronpedia_gets_it_as_a_set_of_its_own(tmp_path: Path) -> None:
    root = made_run(tmp_path / "run", {(MODULE, 0): "+-", (MODULE, 1): "+"})
    told = export_run("neuronpedia", root, tmp_path / "bundle", METHODS)
    assert "left out" not in told
    [model] = (tmp_path / "bundle" / "v1").iterdir()
    assert {path.name for path in model.iterdir()} == {"2-mlp", "2-mlp-negative"}
    positive, negative = model / "2-mlp", model / "2-mlp-negative"
    assert [row["index"] for row in lines(positive / "features" / "batch-0.jsonl.gz")] == ["0", "1"]
    [feature] = lines(negative / "features" / "batch-0.jsonl.gz")
    assert (feature["index"], feature["layer"], feature["sourceSetName"]) == ("0", "2-mlp-negative", "mlp-negative")
    assert (feature["maxActApprox"], feature["frac_nonzero"]) == (3.0, 0.1)
    assert (feature["pos_str"], feature["pos_values"]) == (["down"], [1.0])
    assert (feature["neg_str"], feature["neg_values"]) == (["up"], [-2.0])
    assert sum(feature["freq_hist_data_bar_heights"]) == pytest.approx(1)
    [activation] = lines(negative / "activations" / "batch-0.jsonl.gz")
    assert (activation["values"], activation["maxValue"], activation["minValue"]) == ([0.0, 3.0, -1.0], 3.0, -1.0)
    [explanation] = lines(negative / "explanations" / "batch-0.jsonl.gz")
    assert explanation["description"] == f"{MODULE} 0 -"
    assert "sign turned" in (negative / "source.jsonl").read_text()
    ids = [row["id"] for path in (positive, negative) for row in lines(path / "activations" / "batch-0.jsonl.gz")]
    assert len(set(ids)) == len(ids)


def test_delphi_gets_it_as_a_module_of_its_own(tmp_path: Path) -> None:
    root = made_run(tmp_path / "run", {(MODULE, 0): "+-", (BOX, 1): "-"})
    export_run("delphi", root, tmp_path / "results", METHODS)
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "results" / "explanations").iterdir()}
    assert found == {
        "layers.2.mlp_latent0.txt": f"{MODULE} 0 +",
        "layers.2.mlp.negative_latent0.txt": f"{MODULE} 0 -",
        "black_box.length.negative_latent1.txt": f"{BOX} 1 -",
    }


@pytest.mark.parametrize("name", ["openai", "circuit-tracer"])
def test_formats_without_a_place_for_it_say_so(tmp_path: Path, name: str) -> None:
    root = made_run(tmp_path / "run", {(MODULE, 0): "+-", (MODULE, 1): "-"})
    told = export_run(name, root, tmp_path / "both", METHODS)
    assert f"left out: the polarity '-' of 2 explained units, for which {name} has no place" in told
    assert f"{MODULE} 0 -" not in "".join(path.read_text("latin-1") for path in (tmp_path / "both").rglob("*.json*"))
    root = made_run(tmp_path / "other", {(MODULE, 0): "+"})
    assert "left out:" not in export_run(name, root, tmp_path / "one", METHODS)
    root = made_run(tmp_path / "negative", {(MODULE, 0): "-"})
    with pytest.raises(UserError, match="polarity '-' alone is explained, for which this format has no place"):
        export_run(name, root, tmp_path / "none", METHODS)


def test_a_run_of_the_negative_polarity_alone_is_exported(tmp_path: Path) -> None:
    root = made_run(tmp_path / "run", {(MODULE, 1): "-", (BOX, 0): "-"})
    export_run("neuronpedia", root, tmp_path / "bundle", METHODS)
    assert [path.name for path in (tmp_path / "bundle" / "v1").glob("*/*")] == ["2-mlp-negative"]
    export_run("neuronpedia", made_run(tmp_path / "two", {(MODULE, 1): "+", (BOX, 0): "-"}), tmp_path / "plus", METHODS)
    assert [path.name for path in (tmp_path / "plus" / "v1").glob("*/*")] == ["2-mlp"]


def test_the_mirrored_unit_is_that_of_the_negated_activations(tmp_path: Path) -> None:
    root = made_run(tmp_path / "run", {(MODULE, 0): "-"})
    negative = ExportedRun(open_run(root), []).negative
    assert negative is not None
    [unit] = negative.units(MODULE, [0])
    own = unit.statistics
    assert (own["min"], own["max"], own["mean"], own["skewness"], own["variance"]) == (-4.0, 3.0, -0.25, -0.5, 2.0)
    assert (own["histogram_edges"], own["histogram_counts"]) == ([-4.0, -1.0, 1.0, 3.0], [2, 7, 1])
    assert (own["quantile_boundaries"], own["quantile_boundaries_negative"]) == ([0.25, 2.5], [-2.5, -0.25])
    assert [one.activations for one in unit.exemplars] == [[None, 3.0, -1.0]] * 2
