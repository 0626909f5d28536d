"""What a finished run of SASC says at its end, whatever became of its units."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.query import final_report
from stages import REPORTS
from stages.sasc.sasc_tables import SASC_SCORES


def row(index: int, score: float | None, status: str, candidate: int = 0, **more: Any) -> dict[str, Any]:
    known = {"ci_low": -0.5, "ci_high": 2.5, "p_value": 0.01, "null_mean": 0.1} if score is not None else {}
    keys = {"module": "black_box:f", "index": index, "polarity": "+", "candidate": candidate, "text": f"theme {index}"}
    return keys | {"score": score, "status": status} | known | more


def report(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    """The parts of the report."""
    (folder / "sasc_scores").mkdir()
    table = pa.Table.from_pylist(rows, schema=SASC_SCORES.schema)
    pq.write_table(table, folder / "sasc_scores" / "part-00000.parquet")
    return final_report(folder, 0, REPORTS).split("\n\n")


@pytest.mark.parametrize(
    ("units", "titles"), [(16, ["Explanations from n-grams"]), (17, ["Best explained by n-grams", "Drawn at random"])]
)
def test_few_units_are_all_shown_and_of_many_the_best_and_some(tmp_path: Path, units: int, titles: list[str]) -> None:
    rows = [row(index, float(index), "ok") for index in range(units)]
    rows += [row(index, None, "not_selected", 1) for index in range(units)]
    parts = report(tmp_path, rows)
    shown = [part.splitlines() for part in parts[2 : 2 + len(titles)]]
    assert [part[0] for part in shown] == titles
    assert [len(part) - 3 for part in shown] == ([16] if units == 16 else [8, 8])
    assert shown[0][3].split()[:4] == ["black_box:f", str(units - 1), "+", f"{units - 1}.000"]
    assert f"{units} of {units} units scored: mean score {(units - 1) / 2:.2f} (null units 0.10)" in parts[-1]


def test_what_has_no_score_is_listed_with_its_reason_and_not_among_the_explanations(tmp_path: Path) -> None:
    rows = [row(0, 1.5, "ok"), row(0, None, "failed", 1, error="the response is nan")]
    rows += [row(unit, None, "failed", number, error="it broke") for unit in (1, 2) for number in (0, 1)]
    rows += [row(3, None, "dead", error="the response to all n-grams is the same")]
    parts = report(tmp_path, rows)
    shown, failures = (
        next(part for part in parts if part.startswith(title)) for title in ("Explanations", "Not scored")
    )
    assert len(shown.splitlines()) == 4
    lines = [" ".join(line.split()) for line in failures.splitlines()[3:]]
    assert lines == [
        "black_box:f 2 failed it broke",
        "black_box:f 1 dead the response to all n-grams is the same",
    ], "a unit that another candidate explains is scored"
    assert "1 of 4 units scored" in parts[-1]
    assert parts[-1].endswith("; 2 failed")
