"""Sequences of other programs are dealt out to the splits, and no text is in two splits of a unit."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.imports.imported_run import UNITS_A_FILE, ImportedSequence, ImportedUnit, write_tables, writers
from pipeline.imports.neuronpedia_bundle import module_of
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, UNITS
from pipeline.storage.tables import Tables
from stages import STAGES


def sequence(band: str, text: str, peak: float = 1.0) -> ImportedSequence:
    return ImportedSequence(band, [text, "."], [peak, 0.0])


def unit(index: int, *sequences: ImportedSequence, module: str = "layers.3.mlp") -> ImportedUnit:
    return ImportedUnit(module, index, list(sequences), ["words"], {"mean": 0.5})


def test_sequences_are_dealt_by_rank(tmp_path: Path) -> None:
    top, random = [sequence("top", f"t{place}") for place in range(9)], [sequence("random", f"r{n}") for n in range(4)]
    write_tables([unit(7, *top, *random, sequence("quantile", "q"))], tmp_path, "other", "x", writers(STAGES.values()))
    rows = Tables(tmp_path).read(EXEMPLARS).to_pylist()
    texts = {row["seq_id"]: row["tokens"][0] for row in Tables(tmp_path).read(CORPUS).to_pylist()}
    found = {texts[row["seq_id"]]: (row["split"][0], row["rank"]) for row in rows}
    assert "".join(found[f"t{place}"][0] for place in range(9)) == "esrresrre"
    assert "".join(found[f"r{place}"][0] for place in range(4)) == "srrs"
    assert [found[f"t{place}"][1] for place in (0, 4, 8, 2, 3, 6, 7)] == [0, 1, 2, 0, 1, 2, 3]
    assert found["q"] == ("e", 0)


def test_a_text_that_comes_twice_stays_in_one_split(tmp_path: Path) -> None:
    kept = [sequence("top", "same"), sequence("random", "same"), sequence("random", "report")]
    kept += [sequence("top", "other"), sequence("top", "report", 0.5)]
    write_tables([unit(7, *kept), unit(8, *kept)], tmp_path, "other", "x", writers(STAGES.values()))
    rows = Tables(tmp_path).read(EXEMPLARS).to_pylist()
    assert [(row["band"], row["split"]) for row in rows if row["index"] == 7] == [
        ("top", "explain"), ("random", "report"), ("top", "select"), ("top", "report"),
    ]  # fmt: skip
    splits: dict[int, set[str]] = {}
    for row in rows:
        splits.setdefault(row["seq_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) == 6 == Tables(tmp_path).count(CORPUS)


def test_units_are_written_some_at_a_time_and_their_sequences_numbered_through(tmp_path: Path) -> None:
    many = [unit(index, sequence("top", "a")) for index in range(UNITS_A_FILE + 1)]
    found = write_tables(
        [*many, unit(0, sequence("top", "b"), module="layers.4.mlp")], tmp_path, "o", "x", writers(STAGES.values())
    )
    assert {module: len(indices) for module, indices in found.items()} == {
        "layers.3.mlp": UNITS_A_FILE + 1,
        "layers.4.mlp": 1,
    }
    for table in (CORPUS, UNITS, EXEMPLARS, EXPLANATIONS):
        files = Tables(tmp_path).files(table)
        assert [pq.read_metadata(path).num_rows for path in files] == [UNITS_A_FILE, 1, 1]
    assert Tables(tmp_path).read(CORPUS)["seq_id"].to_pylist() == list(range(UNITS_A_FILE + 2))


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("15-mlp", "layers.15.mlp"),
        ("6-res-jb", "layers.6.sae:res-jb"),
        ("3", "layers.3.mlp"),
        ("0-attn_out", "layers.0.attn_out"),
    ],
)
def test_a_source_of_neuronpedia_is_a_module(source: str, module: str) -> None:
    assert module_of(source) == module


def test_a_folder_that_names_no_layer_is_told() -> None:
    with pytest.raises(UserError, match="LAYER-SET"):
        module_of("bundle")
