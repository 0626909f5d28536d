"""Two runs have the same rows where every value is the same, in whatever files and order the rows lie."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.results.row_differences import compare_rows, differ
from pipeline.schemas import FLOATS, TableSchema, column

PAIRS = pa.list_(pa.struct([pa.field("from", pa.int32()), pa.field("value", pa.float32())]))
TABLE = TableSchema(
    "made_up",
    1,
    pa.schema(
        [
            column("module", pa.string(), "module"),
            column("index", pa.int32(), "index"),
            column("score", pa.float64(), "score"),
            column("text", pa.string(), "text"),
            column("values", FLOATS, "values"),
            column("pairs", PAIRS, "pairs"),
        ]
    ),
    units_per_group=64,
)
Rows = list[dict[str, Any]]


def rows(count: int = 6) -> Rows:
    rng = np.random.default_rng(0)
    return [
        {
            "module": f"layers.{number // 3}.mlp",
            "index": number % 3,
            "score": None if number == 1 else rng.normal(),
            "text": None if number == 2 else f"text {number}",
            "values": None if number == 3 else [*rng.normal(size=number).tolist(), None],
            "pairs": [{"from": place, "value": rng.normal()} for place in range(number)],
        }
        for number in range(count)
    ]


def write(root: Path, *files: Rows) -> Path:
    for number, part in enumerate(files):
        path = root / TABLE.path / f"part-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(TABLE.of_rows(part), path)
    return root


def compared(tmp_path: Path, one: Rows, *others: Rows) -> list[str]:
    [found] = compare_rows(write(tmp_path / "one", one), write(tmp_path / "other", *others), [TABLE])
    assert (found.table, found.rows) == ("made_up", len(one))
    return found.differences


def test_the_same_rows_in_other_files_and_another_order_are_equal(tmp_path: Path) -> None:
    made = rows()
    assert compared(tmp_path, made, made[::-2], made[-2::-2]) == []


def change(row: int, name: str, value: Any) -> Callable[[Rows], None]:
    def act(made: Rows) -> None:
        made[row][name] = value(made[row][name]) if callable(value) else value

    return act


CHANGES: dict[str, tuple[Callable[[Rows], None], str]] = {
    "a float in its last digit": (change(4, "score", lambda old: math.nextafter(old, 9)), "in score"),
    "a float that is null": (change(0, "score", None), "in score"),
    "a null that is a float": (change(1, "score", 0.0), "in score"),
    "a text": (change(5, "text", "another"), "in text"),
    "a value in a list": (change(4, "values", lambda old: [*old[:2], old[2] + 1e-6, *old[3:]]), "in values"),
    "a null in a list": (change(4, "values", lambda old: [*old[:-1], 0.0]), "in values"),
    "the length of a list": (change(4, "values", lambda old: old[:-1]), "in values"),
    "a list that is null": (change(0, "values", None), "in values"),
    "a value in a struct in a list": (
        change(5, "pairs", lambda old: [{**old[0], "value": 7.0}, *old[1:]]),
        "in pairs",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_change_is_found_and_named(tmp_path: Path, name: str) -> None:
    act, words = CHANGES[name]
    changed = rows()
    act(changed)
    [found] = compared(tmp_path, rows(), changed)
    assert "1 of 3 rows differ" in found
    assert words in found
    assert "the first (module 'layers." in found


def test_missing_and_further_rows_are_told_by_module(tmp_path: Path) -> None:
    further = rows(7)
    further[6]["module"] = "layers.7.mlp"
    assert compared(tmp_path, rows(), rows()[:5], further[6:]) == [
        "layers.1.mlp: 3 rows, and 2 when made again",
        "layers.7.mlp: 0 rows, and 1 when made again",
    ]


def test_a_table_that_is_not_there_differs_from_one_with_rows(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    [found] = compare_rows(write(tmp_path / "one", rows(2)), tmp_path / "none", [TABLE])
    assert found.differences == ["layers.0.mlp: 2 rows, and 0 when made again"]
    [found] = compare_rows(tmp_path / "none", tmp_path / "none", [TABLE])
    assert found.differences == []


def test_every_difference_is_found_that_a_loop_over_values_finds() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        lists: list[list[Any]] = [
            [None if rng.random() < 0.1 else rng.integers(0, 2, rng.integers(0, 3)).tolist() for _ in range(8)]
            for _ in "ab"
        ]
        one, other = (pa.array(values, pa.list_(pa.float32())) for values in lists)
        assert differ(one, other).tolist() == [a != b for a, b in zip(*lists, strict=True)]
    nan = pa.array([float("nan"), 1.0, None])
    assert differ(nan, nan).tolist() == [False, False, False]
