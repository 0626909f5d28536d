"""Whether judges and simulators agree: numbers that libraries give too, over the explanations and questions that both had."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]

from pipeline.errors import UserError
from pipeline.results.agreement import agreements, cohen_kappa, correlation
from pipeline.results.run_folder import open_run
from pipeline.schemas import EXPLANATION_KEYS


def write(root: Path, table: str, rows: pd.DataFrame) -> None:
    (root / table).mkdir(parents=True)
    found = pa.Table.from_pandas(rows, preserve_index=False)
    kinds = [
        pa.field(one.name, pa.string() if pa.types.is_large_string(one.type) else one.type) for one in found.schema
    ]
    pq.write_table(found.cast(pa.schema(kinds)), root / table / "part-00000.parquet")


def of_units(count: int, **columns: Any) -> pd.DataFrame:
    keys = {"module": "layers.0.mlp", "index": np.arange(count), "polarity": "+", "explainer": "e", "candidate": 0}
    return pd.DataFrame(keys | columns)


def judged(method: str, says: Any, prompt: str = "judge/detection.v1") -> pd.DataFrame:
    rows = of_units(len(says), control="", source=0, band="top", fits=True, prompt_id=prompt, method=method, says=says)
    return rows.assign(seq_id=np.arange(len(says)))


def test_kappa_and_correlation_are_those_of_libraries() -> None:
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        one = rng.random(200) < share
        other = np.where(rng.random(200) < 0.7, one, rng.random(200) < 0.5)
        assert cohen_kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))
    assert cohen_kappa(one, one) == 1
    assert np.isnan(cohen_kappa([True, True], [True, True]))
    assert np.isnan(cohen_kappa([], []))
    first, second = rng.normal(size=(2, 9))
    assert correlation(first, second) == pytest.approx(pearsonr(first, second).statistic)
    assert np.isnan(correlation(first, np.ones(9)))
    assert np.isnan(correlation([1, 2], [1, 2]))


def test_two_judges_are_compared_on_the_units_and_the_questions_of_both(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 8))
    rows = [
        of_units(8, text="t", method="a", model="one", score=first),
        of_units(8, text="t", method="b", model="two", score=second),
    ]
    write(tmp_path, "example_scores", pd.concat([rows[0], rows[1].iloc[:6]]))
    yes, other = rng.random((2, 40)) < 0.5
    answers = [judged("a", yes), judged("b", other).iloc[:30], judged("b", ~other, "judge/fuzzing.v1")]
    write(tmp_path, "judgements", pd.concat(answers))
    [found] = agreements(open_run(tmp_path)).to_dict("records")
    assert (found["score"], found["by"], found["first"], found["second"]) == ("score", "method", "a (one)", "b (two)")
    assert (found["units"], found["texts"]) == (6, 30), "what both have, of the same prompt"
    assert found["correlation"] == pytest.approx(pearsonr(first[:6], second[:6]).statistic)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(yes[:30], other[:30]))


def test_of_several_explainers_and_simulators_only_scores_of_the_same_explanations_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = pd.concat(
        of_units(5, text="t", simulator=simulator, correlation=rng.random(5)).assign(explainer=explainer)
        for simulator in ("word", "json", "lookup")
        for explainer in ("e", "f")
    )
    write(tmp_path, "scores", rows[[*EXPLANATION_KEYS, "text", "simulator", "correlation"]])
    found = agreements(open_run(tmp_path))
    assert found["units"].tolist() == [10] * 3
    assert set(zip(found["first"], found["second"], strict=True)) == {
        ("word", "json"),
        ("word", "lookup"),
        ("json", "lookup"),
    }
    assert found["kappa"].isna().all()


def test_a_run_with_one_judge_has_nothing_to_compare(tmp_path: Path) -> None:
    write(tmp_path, "scores", of_units(5, text="t", simulator="word", correlation=0.5))
    with pytest.raises(UserError, match="no two judges or simulators"):
        agreements(open_run(tmp_path))
