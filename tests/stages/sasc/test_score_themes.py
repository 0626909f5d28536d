"""The score of an explanation, its interval and its p-value, which candidate it is of, and why there is none."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from pipeline.llm.engine import EngineError
from stages.sasc import Sasc
from stages.sasc.sasc_units import Row
from stages.sasc.score_themes import interval, sasc_score, score_unit
from stages.sasc.synthesize import HALVES, KINDS, unit_rows, write_texts
from stages.score.statistics import permutation_p
from tests.stages.explain.scripted import Reply, ScriptedEngine
from tests.stages.sasc.small_run import GOOD, run_file, writer

UNIT: Row = {"module": "black_box:f", "index": 2, "polarity": "+", "sigma": 1.0}
THEME: Row = UNIT | {"explainer": "told", "candidate": 0, "text": "ships", "status": "ok", "error": None}
CONFIG = run_file(Path("anywhere"), "few", [GOOD], texts=20, bootstrap=100)


def test_the_score_is_the_difference_of_means_in_standard_deviations() -> None:
    assert sasc_score([3.0, 5.0], [1.0, 1.0, 1.0], 2.0) == 1.5


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan, np.inf])
def test_there_is_no_score_without_a_spread_of_responses(sigma: float) -> None:
    assert np.isnan(sasc_score([3.0, 5.0], [1.0, 1.0], sigma))


def test_there_is_no_score_without_two_texts_of_each_kind() -> None:
    assert np.isnan(sasc_score([3.0], [1.0, 1.0], 1.0))
    assert np.isnan(sasc_score([3.0, np.nan], [1.0, 1.0], 1.0))


def test_the_interval_is_that_of_plain_resampling() -> None:
    rng = np.random.default_rng(0)
    relevant, baseline = rng.normal(2, 1, 30), rng.normal(0, 1, 20)
    low, high = interval(relevant, baseline, 0.5, 4000, np.random.default_rng(1))
    plain = np.random.default_rng(2)
    twin = [(plain.choice(relevant, 30).mean() - plain.choice(baseline, 20).mean()) / 0.5 for _ in range(4000)]
    assert np.allclose([low, high], np.quantile(twin, [0.025, 0.975]), atol=0.06)
    assert low < sasc_score(relevant, baseline, 0.5) < high


def test_an_interval_is_the_same_for_the_same_seed_and_absent_without_a_score() -> None:
    first, again = (interval([1.0, 2.0], [0.0, 1.0], 1.0, 100, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert np.isnan(interval([1.0], [0.0, 1.0], 1.0, 100, np.random.default_rng(3))).all()


def test_a_p_value_counts_null_units_that_score_at_least_as_much() -> None:
    nulls = np.array([0.0, 1.0, 2.0, np.nan])
    assert permutation_p(1.0, nulls) == 3 / 4
    assert permutation_p(9.0, nulls) == 1 / 4
    assert np.isnan(permutation_p(np.nan, nulls))


def test_p_values_of_null_units_among_themselves_are_uniform() -> None:
    scores = np.random.default_rng(0).normal(size=(2000, 41))
    found = np.asarray([permutation_p(row[0], row[1:]) for row in scores])
    assert abs(np.mean(found < 0.05) - 2 / 41) < 0.015
    assert abs(found.mean() - 0.5) < 0.03


def texts_of(candidate: int, select: float, report: float, count: int = 2) -> list[Row]:
    """Rows of the texts for and against a candidate, to which a unit responds so much more and not at all."""
    values = {("relevant", "select"): select, ("relevant", "report"): report}
    return [
        THEME | {"candidate": candidate, "kind": kind, "half": half, "number": number, "response": values.get((kind, half), 0.0)}
        for kind in KINDS for half in HALVES for number in range(count)
    ]  # fmt: skip


def test_the_best_on_the_select_half_is_published_on_the_other_and_never_one_without_a_score() -> None:
    themes = [THEME | {"candidate": number} for number in range(4)]
    texts = [*texts_of(0, 0.1, 9.0), *texts_of(1, 9.0, 9.0, count=1), *texts_of(2, 0.7, -0.5), *texts_of(3, 0.7, 0.5)]
    rows = score_unit(CONFIG, UNIT, themes, texts)
    assert [row["status"] for row in rows] == ["not_selected", "undefined", "ok", "not_selected"]
    assert [row.get("score") for row in rows] == [None, None, -0.5, None]
    assert [row["n_candidates"] for row in rows] == [3] * 4
    turned = score_unit(CONFIG, UNIT | {"polarity": "-"}, themes, texts)
    assert [row.get("score") for row in turned] == [-9.0, None, None, None]


def texts_by(reply: Reply) -> list[Row]:
    """Rows of the texts that a language model writes by a script, each with a response."""
    texts = asyncio.run(write_texts(writer(ScriptedEngine(reply)), THEME, CONFIG))
    rows = unit_rows([(THEME, texts)], CONFIG[Sasc].texts)
    return [row | ({} if row["text"] is None else {"response": float(len(row["text"]))}) for row in rows]


def gone_after(count: int) -> Reply:
    """Two requests of each kind are made at once; the first of each is answered with so many texts, then the server is gone."""

    def reply(request: int, _: int) -> str | EngineError:
        if request not in (0, 2):
            return EngineError("the server is gone")
        return "\n".join(f"{n}. The ship {chr(97 + request)} sailed to {chr(97 + n)}." for n in range(1, count + 1))

    return reply


@pytest.mark.parametrize(("count", "half"), [(3, "report"), (2, "select")])
def test_a_score_without_enough_texts_says_why_there_are_too_few(count: int, half: str) -> None:
    texts = texts_by(gone_after(count))
    assert [row["error"] for row in texts] == 2 * ["the server is gone", *[None] * (count - 1)]
    assert {row["status"] for row in texts} == {"ok"}
    (row,) = score_unit(CONFIG, UNIT, [THEME], texts)
    assert row["status"] == "undefined"
    assert row["error"] == f"there are too few texts for and against it in the {half} half; the server is gone"


def test_a_score_without_any_text_of_a_kind_fails_of_its_reason() -> None:
    (row,) = score_unit(CONFIG, UNIT, [THEME], texts_by(gone_after(0)))
    assert (row["status"], row["error"]) == ("failed", "the server is gone")


def test_fewer_texts_than_were_wanted_are_no_fault_of_a_score() -> None:
    texts = texts_by(gone_after(10))
    assert len([row for row in texts if row["error"]]) == 2
    (row,) = score_unit(CONFIG, UNIT, [THEME], texts)
    assert (row["status"], row["error"], row["n_relevant"]) == ("ok", None, 5)
