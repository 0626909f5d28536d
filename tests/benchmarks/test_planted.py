"""The benchmark of planted units goes through the whole pipeline, and its figures are of what that published."""

import json
from itertools import islice
from typing import Any

import numpy as np
import pytest

from pipeline.corpora.corpus_sources import open_corpus
from tests.benchmarks import bench_planted
from tests.benchmarks.bench_planted import Result, figures
from tests.benchmarks.planted_tokens.units import UNITS

FEW = 7


def result(place: int, explanation: str, *candidates: str, right: float = 0.5) -> Result:
    return Result(UNITS[place], explanation, list(candidates), 0.25, 0.0, right, (0.1, 0.4), -0.2)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a run without a language model, on few units and on text enough that each of them fires in every split."""
    bench_planted.main(["--no-language-model", "--units", str(FEW), "--sequences", "1500"])
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_right_explanations_score_where_wrong_ones_do_not(printed: list[str]) -> None:
    found = json.loads(printed[-1])
    assert found["units"] == FEW
    assert found["score_right"] > 0.25 > 0.1 > abs(found["score_wrong"])
    assert found["inverted_below_zero"] == 1
    assert found["right_above_wrong"] >= 0.99
    assert found["score_found"] > 0.1 > abs(found["score_shuffled"])
    assert found["any_candidate"] >= found["found"] >= max(found["named"], 0.5)
    start = next(number for number, line in enumerate(printed) if line.startswith("unit "))
    rows = printed[start + 1 : start + 1 + FEW]
    assert [row.split()[0] for row in rows] == [unit.name for unit in UNITS[:FEW]]
    assert sum(row.split()[1] in "+l" for row in rows) == pytest.approx(found["found"] * FEW, abs=0.01)


def test_figures_are_shares_and_means_over_units() -> None:
    colours, animals = UNITS[0].explanation, UNITS[1].explanation
    listed = 'the words "red", "blue" and "green"'
    done = [
        result(0, colours, colours),
        result(0, listed, listed),
        result(1, colours, colours, animals),
        result(1, colours, colours, right=np.nan),
    ]
    expected = {"named": 0.25, "found": 0.5, "any_candidate": 0.75, "score_found": 0.25, "score_right": 0.375}
    others = {"score_wrong": 0.25, "score_shuffled": 0.0, "score_inverted": -0.2}
    assert figures(done) == expected | others | {"right_above_wrong": 0.75, "inverted_below_zero": 1.0}


@pytest.mark.slow
def test_units_that_fire_nowhere_score_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(bench_planted, "open_corpus", lambda corpus: islice(open_corpus(corpus), 2))
    bench_planted.main(["--no-language-model", "--units", "2", "--sequences", "20"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["units"] == 2
    assert found["named"] == found["score_found"] == 0
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("units", ["0", str(len(UNITS) + 1)])
def test_a_number_of_units_that_there_are_not_is_refused(units: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        bench_planted.main(["--units", units])
    assert f"1 to {len(UNITS)}" in capsys.readouterr().err
