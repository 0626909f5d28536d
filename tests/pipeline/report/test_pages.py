"""The data of the pages says what the tables say, and means nothing to a parser of HTML."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.report.pages import SITE, write_pages
from pipeline.report.unit_list import in_order
from pipeline.results.run_folder import open_run
from stages import REPORTS
from tests.pipeline.report.made_up_run import write_run

HOSTILE = ["</script><script>alert(1)</script>", "\u2028\u202e\x00", "<img src=x onerror=alert(1)>", "é\ud7ff𝔸"]


def data(page: Path, name: str) -> Any:
    """The value that a script of the pages hands over."""
    text = (page.parent / "data" / f"{name}.js").read_text(encoding="ascii")
    found = re.fullmatch(r'NG\.put\("([^"]+)",(.*)\);\n', text, re.DOTALL)
    assert found
    assert found[1] == name
    return json.loads(found[2])


def column(table: Any, name: str) -> list[Any]:
    """A column of a table of a unit's file, which is one value where all its values are the same."""
    values = table[name]
    return values if isinstance(values, list) else [values] * len(table["index"])


def pages(root: Path) -> Path:
    return write_pages(open_run(root), REPORTS, lambda done, total: None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pages(write_run(tmp_path_factory.mktemp("run") / "made-up", 40, texts=["plain {}", *HOSTILE]))


def test_the_list_is_that_of_the_scores_table(page: Path) -> None:
    scores = open_run(page.parent.parent).scores
    listed = data(page, "list")
    assert listed["rows"] == len(scores) == 40
    for name, column in [("score", "correlation"), ("low", "ci_low"), ("lookup", "correlation_lookup")]:
        found = np.frombuffer(base64.b64decode(listed[name]), "<f4")
        np.testing.assert_allclose(found, scores[column].to_numpy(np.float32))
    assert listed["text"] == list(scores["text"])


def test_the_list_has_a_row_for_each_simulator_and_each_explanation_that_was_written(tmp_path: Path) -> None:
    root = write_run(tmp_path / "made-up", 4, texts=["plain {}"])
    [file] = (root / "scores").glob("*.parquet")
    rows = pq.read_table(file)
    further: list[dict[str, Any]] = [
        {"simulator": "other"},
        {"explainer": "human"},
        {"explainer": "human", "candidate": 1},
    ]
    for number, changed in enumerate(further):
        more = rows
        for name, value in changed.items():
            field = rows.schema.field(name)
            more = more.set_column(rows.schema.names.index(name), field, pa.array([value] * len(rows), field.type))
        pq.write_table(more, file.with_name(f"part-9{number}.parquet"))
    listed = data(pages(root), "list")
    assert listed["rows"] == 4 * len(rows)
    assert listed["explainer"]["words"] == ["human", "statistics"]
    assert listed["simulator"]["words"] == ["word", "other"]


def test_activations_of_a_unit_are_those_of_its_exemplars(page: Path) -> None:
    run, scales = open_run(page.parent.parent), data(page, "run")["scales"]
    unit = data(page, "units/1")
    shown = unit["tables"]["exemplars"]
    table = run.table("exemplars")
    table = table[(table["module"] == unit["module"]) & table["index"].isin(unit["indices"])].set_index(
        ["index", "seq_id"]
    )
    levels = np.frombuffer(base64.b64decode(shown["values"]), np.int8)
    start = 0
    for index, seq_id, scale, length in zip(
        shown["index"], column(shown, "seq_id"), shown["scale"], shown["lengths"], strict=True
    ):
        own = levels[start : start + length].astype(float)
        start += length
        true = np.array(table.loc[(index, seq_id), "activations"], dtype=float)
        np.testing.assert_array_equal(own == -128, np.isnan(true))
        np.testing.assert_allclose(
            np.where(own == -128, np.nan, own / scales["levels"] * scale), true, atol=scale / 200
        )
    assert start == len(levels)
    assert set(column(shown, "split")) == {"explain", "report"}


def test_simulated_activations_are_those_of_the_table(page: Path) -> None:
    run, unit = open_run(page.parent.parent), data(page, "units/0")
    shown = unit["tables"]["simulations"]
    steps = np.frombuffer(base64.b64decode(shown["values"]), np.uint8)
    table = run.table("simulations").query("module == @unit['module']")
    expected = np.concatenate(list(table.sort_values("index", kind="stable")["expected"])).astype(float)
    np.testing.assert_array_equal(steps == 255, np.isnan(expected))
    np.testing.assert_allclose(
        steps[steps < 255] / data(page, "run")["scales"]["steps"], expected[steps < 255], atol=0.021
    )


def test_every_shown_sequence_is_there_with_its_neighbours(page: Path) -> None:
    shown = {
        number
        for file in (page.parent / "data" / "units").iterdir()
        for number in data(page, f"units/{file.stem}")["tables"]["exemplars"]["seq_id"]
    }
    corpus = open_run(page.parent.parent).table("corpus").set_index("seq_id")
    for number in sorted(shown):
        found = data(page, f"corpus/{number // 32}")[str(number)]
        assert found["tokens"] == list(corpus.loc[number, "tokens"])
        if found["after"] >= 0:
            assert corpus.loc[found["after"], "doc_id"] == found["doc"]
            assert corpus.loc[found["after"], "start"] == found["start"] + 64
    assert data(page, "corpus/0")["1"]["before"] == 0


def test_no_bin_of_a_histogram_loses_a_token(page: Path) -> None:
    table = open_run(page.parent.parent).table("units")
    unit = data(page, "units/0")
    for histogram, counts in zip(unit["tables"]["units"]["histogram"], table["histogram_counts"], strict=False):
        assert sum(histogram["counts"]) == counts.sum()
        assert len(histogram["edges"]) == len(histogram["counts"]) + 1 <= 52


def test_data_is_ascii_without_a_sign_that_begins_a_tag(page: Path) -> None:
    files = list((page.parent / "data").rglob("*.js"))
    assert len(files) > 10
    for file in files:
        assert b"<" not in file.read_bytes()
        assert file.read_bytes().isascii()


def test_modules_are_in_the_order_of_their_layers() -> None:
    assert sorted(["layers.10.mlp", "layers.2.mlp", "black_box:b"], key=in_order) == [
        "black_box:b",
        "layers.2.mlp",
        "layers.10.mlp",
    ]


def test_pages_are_replaced_once_the_new_ones_are_complete(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 4)
    page = pages(root)
    before = data(page, "list")
    (root / "scores" / "part-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(Exception, match=r"(?i)parquet|magic"):
        pages(root)
    assert data(page, "list") == before
    (root / "scores" / "part-00001.parquet").unlink()
    assert data(pages(root), "list") == before
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []


def test_the_strongest_sequences_of_each_row_are_those_of_its_exemplars(page: Path) -> None:
    scores = open_run(page.parent.parent).scores
    table = open_run(page.parent.parent).table("exemplars").query("band == 'top' and split == 'explain'")
    found = np.frombuffer(base64.b64decode(data(page, "strongest")), "<i4").reshape(len(scores), -1)
    for row, module, index in zip(found, scores["module"], scores["index"], strict=True):
        own = table[(table["module"] == module) & (table["index"] == index)].sort_values("rank")
        assert row.tolist() == own["seq_id"].tolist()


def test_runs_of_the_same_subject_are_found_and_others_are_not(tmp_path: Path) -> None:
    for name, revision in [("mine", "a"), ("same", "a"), ("other", "b")]:
        write_run(tmp_path / name, 4, texts=[f"{name} {{}}"])
        partial = pa.table({"index": pa.array([], pa.int32())})
        (tmp_path / name / "_partials" / "units").mkdir(parents=True)
        settings = {"settings": {"revision": revision, "paths": {}, "sources": {}}}
        footer = partial.replace_schema_metadata({"inputs": json.dumps(settings)})
        pq.write_table(footer, tmp_path / name / "_partials" / "units" / "part-00000.parquet")
    found = data(pages(tmp_path / "mine"), "units/0")["tables"]["elsewhere"]
    scores = open_run(tmp_path / "same").scores
    assert found["run"] == "same"
    assert found["text"] == list(scores["text"])
    np.testing.assert_allclose(found["score"], scores["correlation"], rtol=1e-3)


def test_a_fingerprint_that_looks_like_a_number_stays_a_text(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 4)
    path = root / "scores" / "part-00000.parquet"
    table = pq.read_table(path)
    footer = {"schema": "scores/1", "fingerprint": "12345678e1234567", "seconds": "2.5", "inputs": '{"seed":0}'}
    pq.write_table(table.replace_schema_metadata(footer), path)
    found = data(pages(root), "run")["tables"]["scores"]
    assert found["made"] == {name: footer[name] for name in ("schema", "fingerprint")} | {"inputs": {"seed": 0}}
    assert found["seconds"] == 2.5


def test_a_run_without_scores_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="make run"):
        pages(tmp_path / "empty")


def _luminance(color: str) -> float:
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("front", ["ink", "soft", "accent", "other", "third"])
@pytest.mark.parametrize("back", ["paper", "panel"])
def test_texts_stand_out_from_their_background(scheme: int, front: str, back: str) -> None:
    """The contrast that WCAG 2.2 asks of text, 4.5 to 1."""
    style = (SITE / "style.css").read_text(encoding="utf-8")
    low, high = sorted(_luminance(re.findall(rf"--{name}: (#\w{{6}});", style)[scheme]) for name in (front, back))
    assert (high + 0.05) / (low + 0.05) >= 4.5
