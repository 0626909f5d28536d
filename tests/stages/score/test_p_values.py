"""P-values of explanations that are about nothing are even, as the controls have the same choice."""

import numpy as np
import pytest
from scipy.stats import kstest

from tests.stages.score.test_score_units import T, each_once, make_exemplars, score, simulated


def p_value_of_nothing(rng: np.random.Generator, choice: int) -> float:
    """That of a unit whose explanation is one of 20 that are all alike; each has 4 candidates, the controls as many as `choice`.

    Candidates differ in how well they fit any unit, on both splits, as wordy explanations and bare ones do.
    """
    exemplars = make_exemplars(rng, repeat=False)
    fit, rows = rng.normal(0, 0.4, (20, 4)), []
    for e in (e for split in ("select", "report") for e in each_once(exemplars, split)):
        said = fit[:, :, None] * np.nan_to_num(e.activations) + rng.normal(size=(20, 4, T))
        rows += [simulated(e, said[0, c], c) for c in range(4)]
        rows += [simulated(e, said[s, c], None, "shuffled", 20 + s, c) for s in range(1, 20) for c in range(choice)]
    return float(next(row["p_value"] for row in score(exemplars, rows, 4) if row["p_value"] is not None))


@pytest.mark.slow
def test_controls_with_the_same_choice_give_even_p_values_where_no_explanation_is_about_its_unit() -> None:
    rng = np.random.default_rng(11)
    found = np.asarray([p_value_of_nothing(rng, 4) for _ in range(500)])
    steps = found + rng.uniform(-1 / 20, 0, 500)  # a p-value is a multiple of 1 / 20
    assert kstest(steps, "uniform").pvalue > 0.01
    assert np.mean(found <= 0.1) <= 0.13
    without = np.asarray([p_value_of_nothing(rng, 1) for _ in range(150)])
    assert np.mean(without <= 0.1) > 0.2, "so much does a choice raise the score of any explanation"
