"""Which units of a run are exported, and with which explanation."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.exports.activation_bars import bars, percentiles
from pipeline.exports.exported_run import ExportedRun
from pipeline.exports.exported_unit import ExportedExemplar
from pipeline.exports.openai import dealt
from pipeline.results.run_folder import open_run
from pipeline.schemas import EXPLANATION, EXPLANATIONS, OUTCOME, column, unit_table
from pipeline.storage.shards import publish

GRADES = unit_table(
    "grades", 1, *EXPLANATION, column("text", pa.string(), "text"), column("grade", pa.float64(), "a score"), *OUTCOME
)
Row = dict[str, Any]


def row(module: str, index: int, text: str | None, **more: Any) -> Row:
    keys = {"module": module, "index": index, "polarity": "+", "explainer": "one", "candidate": 0, "status": "ok"}
    return keys | {"text": text} | more


def run_of(folder: Path, rows: list[Row], grades: list[Row] = [], **options: Any) -> ExportedRun:  # noqa: B006
    publish(folder / "explanations" / "part-00000.parquet", EXPLANATIONS.of_rows(rows), EXPLANATIONS, {})
    if grades:
        publish(folder / "grades" / "part-00000.parquet", GRADES.of_rows(grades), GRADES, {})
    return ExportedRun(open_run(folder), ["grades", "other"], **options)


def test_explained_units_are_exported_by_layer(tmp_path: Path) -> None:
    rows = [row("layers.10.mlp", 5, "a"), row("layers.10.mlp", 2, "b"), row("layers.9.mlp", 1, None, status="failed")]
    rows += [row("layers.2.mlp", 7, "c"), row("layers.2.mlp", 8, "d", polarity="-")]
    assert run_of(tmp_path, rows).indices == {"layers.2.mlp": [7], "layers.10.mlp": [2, 5]}
    nulls = [row("black_box:null_directions", 3, "made up for comparison")]
    assert run_of(tmp_path, [*rows, *nulls]).indices == {"layers.2.mlp": [7], "layers.10.mlp": [2, 5]}


def test_the_best_score_comes_first_and_what_is_not_published_is_left_out(tmp_path: Path) -> None:
    rows = [row("layers.2.mlp", 7, "favourite"), row("layers.2.mlp", 7, "second", candidate=1)]
    rows += [row("layers.2.mlp", 8, "unscored"), row("layers.2.mlp", 8, "also", candidate=1)]
    grades = [row("layers.2.mlp", 7, "favourite", grade=0.9, status="not_selected")]
    grades += [row("layers.2.mlp", 7, "second", candidate=1, grade=0.2)]
    grades += [row("layers.2.mlp", 7, "by hand", explainer="human", grade=0.4)]
    first, other = run_of(tmp_path, rows, grades).units("layers.2.mlp", [7, 8])
    assert [(one.text, one.scores) for one in first.explanations] == [
        ("by hand", {"grade": 0.4}),
        ("second", {"grade": 0.2}),
    ]
    assert [(one.text, one.scores) for one in other.explanations] == [("unscored", {})]
    assert first.exemplars == []


def test_two_kinds_of_unit_in_a_layer_are_refused_with_the_way_on(tmp_path: Path) -> None:
    rows = [row("layers.2.attn", 0, "a"), row("layers.2.mlp", 0, "b"), row("black_box:near", 0, "c")]
    with pytest.raises(UserError, match=r"layers\.2\.attn and layers\.2\.mlp .* --modules 'layers\.\*\.mlp'"):
        run_of(tmp_path, rows).by_layer()
    assert run_of(tmp_path, rows, modules="layers.*.mlp").by_layer() == {2: "layers.2.mlp"}
    assert run_of(tmp_path, rows).in_layers() == {"layers.2.attn": 2, "layers.2.mlp": 2}
    with pytest.raises(UserError, match="black_box:near are in none"):
        run_of(tmp_path, rows, modules="black_box:*").by_layer()


def test_a_run_without_explanations_names_the_option(tmp_path: Path) -> None:
    run = run_of(tmp_path, [row("layers.2.mlp", 0, None, status="dead")])
    with pytest.raises(UserError, match="--all"):
        _ = run.indices


def exemplars(**counts: int) -> list[ExportedExemplar]:
    ids = iter(range(100))
    return [ExportedExemplar(next(ids), "top", split, [], []) for split, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"explain": 3, "select": 1, "report": 2}, "esrr"),
        ({"explain": 2, "select": 2, "report": 5}, "esrresrr"),
        ({"explain": 2, "report": 2}, "eerr"),
        ({}, ""),
    ],
)
def test_exemplars_are_dealt_until_a_split_runs_out(counts: dict[str, int], expected: str) -> None:
    kept = exemplars(**counts)
    found = dealt(kept, ("explain", "select", "report", "report"))
    assert "".join(one.split[0] for one in found) == expected
    assert len({one.seq_id for one in found}) == len(found)


def test_a_position_that_does_not_count_is_never_the_peak() -> None:
    one = ExportedExemplar(0, "random", "report", ["a", "b", "c", "d"], [None, -2.0, -1.0, -1.0])
    assert (one.values, one.peak) == ([0.0, -2.0, -1.0, -1.0], 2)


def test_bars_hold_all_tokens_above_zero() -> None:
    statistics = {"histogram_edges": [-1.0, -0.5, 0.5, 1.0, 2.0, 4.0], "histogram_counts": [5, 90, 4, 0, 6]}
    heights, middles = bars(statistics, 7)
    assert sum(heights) == pytest.approx(10)
    assert heights[0] == pytest.approx(4)
    assert middles[0] == 0.75
    assert [percentiles(statistics)[place] for place in (38, 40, 99)] == pytest.approx([0.9875, 2 + 0.1 / 3, 4.0])
    for nothing in ({}, {"histogram_edges": [-1.0, -0.5], "histogram_counts": [3]}):
        assert bars(nothing, 7) == ([], [])
        assert percentiles(nothing) == []
