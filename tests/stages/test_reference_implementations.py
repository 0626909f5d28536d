"""On the same inputs, our numbers are those of the published implementations to 1e-6 where the definitions agree.

What those gave stands in reference_goldens.json, with the commits that they were run at; docs/scores.md shows some of it.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.llm.engine import Completion, ReplyToken
from stages.judge.answer_scores import agreement
from stages.judge.fuzzing import responds
from stages.judge.text_choice import spread
from stages.judge.yes_no import read_reply
from stages.score.scorers import fit_calibration, shares_of
from stages.score.sum_kernels import correlation_of
from tests.stages.judge.units import exemplar

GOLDENS: dict[str, Any] = json.loads((Path(__file__).parent / "reference_goldens.json").read_text())
BILLS = GOLDENS["bills"]
TOLERANCE = 1e-6


def flat(split: str, which: str) -> Any:
    return np.concatenate(BILLS[split][which])


def correlation(true: Any, simulated: Any) -> float:
    t, e = np.asarray(true), np.asarray(simulated)
    return float(correlation_of(t.size, t.sum(), e.sum(), (t * t).sum(), (e * e).sum(), (t * e).sum()))


@pytest.mark.parametrize("method", ["none", "linear", "percentile"])
def test_calibrated_scores_are_those_of_bills_et_al(method: str) -> None:
    calibrate = fit_calibration(method, flat("select", "true"), flat("select", "simulated"))
    found, theirs = calibrate(flat("report", "simulated")), BILLS["scores"][method]
    assert found == pytest.approx(np.concatenate(BILLS["calibrated"][method]), abs=TOLERANCE, rel=0)
    shares = shares_of(flat("report", "true"), found)
    assert shares["r_squared"] == pytest.approx(theirs["r_squared"], abs=TOLERANCE, rel=0)
    assert shares["absolute_deviation"] == pytest.approx(theirs["absolute_deviation"], abs=TOLERANCE, rel=0)


def test_correlations_are_those_of_bills_et_al() -> None:
    true, simulated, theirs = BILLS["report"]["true"], BILLS["report"]["simulated"], BILLS["scores"]["none"]
    assert correlation(np.concatenate(true), np.concatenate(simulated)) == pytest.approx(
        theirs["correlation"], abs=TOLERANCE, rel=0
    )
    within = [correlation(*one) for one in zip(true, simulated, strict=True)]
    assert np.mean(within) == pytest.approx(theirs["correlation_sequence"], abs=TOLERANCE, rel=0)


def test_an_inverted_simulation_is_turned_round_by_theirs_and_never_by_ours() -> None:
    true, simulated = flat("report", "true"), 10 - flat("report", "simulated")
    calibrate = fit_calibration("linear", flat("select", "true"), 10 - flat("select", "simulated"))
    assert BILLS["inverted"]["correlation"] == pytest.approx(-correlation(true, simulated), abs=TOLERANCE, rel=0)
    assert shares_of(true, calibrate(simulated))["r_squared"] < 0.2 < 0.8 < BILLS["inverted"]["r_squared"]


@pytest.mark.parametrize("case", GOLDENS["delphi_metrics"])
def test_measures_of_answers_are_those_of_delphi(case: dict[str, Any]) -> None:
    rows = pd.DataFrame({"fits": case["fits"], "says": case["says"], "value": case["probability"]})
    found = agreement(rows[rows["says"].notna()])
    names = {"tp": "true_positives", "fp": "false_positives", "tn": "true_negatives", "fn": "false_negatives"}
    assert {name: found[name] for name in names} == {name: case["confusion"][theirs] for name, theirs in names.items()}
    for name, theirs in (("balanced_accuracy", "accuracy"), ("f1", "f1_score"), ("auroc", "auc")):
        assert found[name] == pytest.approx(case[theirs], abs=TOLERANCE, rel=0)


def test_probabilities_of_answers_are_those_of_delphi() -> None:
    given = GOLDENS["delphi_probabilities"]
    tokens: list[ReplyToken] = []
    for number, (yes, no, other) in enumerate(given["yes_no_other"], 1):
        tokens += [ReplyToken(text, ((text, 0.0),)) for text in (f"{number}", ":")]
        tokens += [
            ReplyToken(" yes", ((" yes", yes), (" no", no), (" other", other))),
            ReplyToken("\n", (("\n", 0.0),)),
        ]
    reply = Completion("".join(token.text for token in tokens), 1, 1, True, tuple(tokens))
    found, fault = read_reply(reply, len(given["probability"]))
    assert not fault
    assert [answer.probability for answer in found] == pytest.approx(given["probability"], abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("case", GOLDENS["delphi_marks"])
def test_the_tokens_marked_as_right_are_those_of_delphi(case: dict[str, Any]) -> None:
    values = case["activations"]
    marked = responds(exemplar(0, "fires", [f" w{place}" for place in range(len(values))], values))
    theirs = {int(word) for run in re.findall("<<(.*?)>>", case["text"]) for word in re.findall(r"w(\d+)", run)}
    assert set(np.flatnonzero(marked).tolist()) == theirs


def test_as_many_texts_of_each_decile_are_chosen_as_delphi_chooses() -> None:
    case = GOLDENS["delphi_deciles"]
    found = spread(np.arange(case["strengths"]), case["wanted"], np.random.default_rng(0))
    assert np.bincount([decile - 1 for _, decile in found]).tolist() == case["per_decile"]
    theirs = {rank // (case["strengths"] // 10): decile for rank, decile in case["decile_of_rank"]}
    assert all(theirs[place // (case["strengths"] // 10)] == decile - 1 for place, decile in found)


def test_theirs_gives_a_number_where_there_is_only_one_kind_of_text_and_ours_none() -> None:
    rows = pd.DataFrame({"fits": [True, True], "says": [True, True], "value": [None, None]})
    assert math.isnan(agreement(rows)["balanced_accuracy"])
