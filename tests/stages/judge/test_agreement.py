"""Measures of a judge agree with their definitions, and what is not defined is NaN."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from stages.judge.judge_units import agreement


def measures(fits: Sequence[bool], says: Sequence[bool], probabilities: Sequence[float | None]) -> dict[str, float]:
    return agreement(pd.DataFrame({"fits": fits, "says": says, "probability": probabilities}))


def test_measures_of_a_small_example() -> None:
    found = measures([True, True, True, False], [True, True, False, True], [0.9, 0.8, 0.2, 0.5])
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 3))
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
def test_nothing_is_defined_with_one_kind_of_text(fits: list[bool]) -> None:
    found = measures(fits, fits, [0.5] * len(fits))
    assert all(math.isnan(value) for value in found.values())


def test_auroc_needs_every_probability() -> None:
    found = measures([True, False], [True, False], [0.9, None])
    assert math.isnan(found["auroc"])
    assert found["balanced_accuracy"] == 1.0
