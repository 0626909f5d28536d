"""Measures of a judge agree with their definitions, and what is not defined is NaN."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.judge.answer_scores import agreement


def measures(fits: Sequence[bool], says: Sequence[bool | None], values: Sequence[float | None]) -> dict[str, Any]:
    return agreement(pd.DataFrame({"fits": fits, "says": says, "value": values}))


def test_measures_of_a_small_example() -> None:
    found = measures([True, True, True, False], [True, True, False, True], [0.9, 0.8, 0.2, 0.5])
    assert [found[name] for name in ("tp", "fp", "tn", "fn")] == [2, 1, 0, 1]
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert (found["accuracy_always_yes"], found["accuracy_always_no"]) == (0.75, 0.25)
    assert found["f1_always_yes"] == pytest.approx(2 * 3 / (3 + 4))
    assert found["auroc"] == pytest.approx(2 / 3)


def test_always_yes_is_no_better_than_chance_on_an_unbalanced_set() -> None:
    assert measures([True] * 8 + [False] * 2, [True] * 10, [None] * 10)["balanced_accuracy"] == 0.5


def test_the_sign_of_auroc_is_kept() -> None:
    assert measures([True, False], [True, False], [0.1, 0.9])["auroc"] == 0.0


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    truth, values = rng.random(40) < 0.4, rng.integers(0, 6, 40).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in values[truth] for b in values[~truth]]
    assert measures(truth.tolist(), truth.tolist(), values.tolist())["auroc"] == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("fits", [[], [True, True], [False]])
def test_no_balanced_measure_is_defined_with_one_kind_of_text(fits: list[bool]) -> None:
    found = measures(fits, fits, [0.5] * len(fits))
    assert all(math.isnan(found[name]) for name in ("balanced_accuracy", "f1", "auroc", "accuracy_always_yes"))


def test_without_every_probability_the_answers_are_ranked() -> None:
    found = measures([True, True, False], [True, False, False], [0.9, None, 0.95])
    assert found["auroc"] == found["balanced_accuracy"] == 0.75


def test_numbers_without_answers_have_an_auroc_and_no_counts() -> None:
    found = measures([True, False], [None, None], [2.0, 1.0])
    assert found["auroc"] == 1.0
    assert found["tp"] is None
    assert math.isnan(found["balanced_accuracy"])
