"""Scores on the corpus as it is are those of all its sequences where all are kept, and near to them where few are."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import pearsonr

from stages.score.corpus_scores import ALL_OF_THEM, NAMES, corpus_scores, firing_threshold
from stages.score.kept_sequences import Drawn, Kept
from stages.score.scorers import Explained
from stages.score.statistics import Floats
from tests.stages.score.coverage import covered_on_corpus, explained, made_up_tokens

SEQUENCES = 60
"""Of each split."""


def a_unit(seed: int, top: int, random: int) -> tuple[Explained, Floats, Floats]:
    """An explanation on the kept sequences, and true and expected activations of all report ones."""
    rng = np.random.default_rng(seed)
    true, expected = made_up_tokens(rng, 2 * SEQUENCES)
    one = explained(rng, true, expected, top, random, float(np.quantile(true, 0.95)))
    return one, true[SEQUENCES:].astype(np.float64), expected[SEQUENCES:].astype(np.float64)


def average_precision(fires: Floats, expected: Floats, weights: Floats) -> float:
    """By brute force, threshold after threshold."""
    points = [(0.0, 1.0)]
    for threshold in np.unique(expected)[::-1]:
        said = expected >= threshold
        hits = (weights * (said & (fires > 0))).sum()
        points.append((hits / (weights * fires).sum(), hits / (weights * said).sum()))
    return sum((recall - before) * precision for (before, _), (recall, precision) in pairwise(points))


def brute(one: Explained, true: Floats, expected: Floats, weights: Floats) -> dict[str, float]:
    """The five scores of (S, T) values with (S,) weights, each written out."""
    w = np.repeat(weights, true.shape[1])
    t, e = true.ravel(), expected.ravel()
    fires, said = (t > one.kept.fires_above).astype(float), (e >= firing_threshold(one)).astype(float)
    means = [np.average(x, weights=w) for x in (t, e)]
    ct, ce = t - means[0], e - means[1]
    hits = (w * fires * said).sum()
    return {
        "correlation": (w * ct * ce).sum() / np.sqrt((w * ct * ct).sum() * (w * ce * ce).sum()),
        "cosine": (w * t * e).sum() / np.sqrt((w * t * t).sum() * (w * e * e).sum()),
        "f1": 2 * hits / (w * (fires + said)).sum(),
        "iou": hits / (w * np.maximum(fires, said)).sum(),
        "auprc": average_precision(fires, e, w),
    }


@pytest.mark.parametrize("seed", range(4))
def test_where_everything_is_kept_they_are_those_of_the_whole_split_and_certain(seed: int) -> None:
    one, true, expected = a_unit(seed, 10, SEQUENCES)
    found = corpus_scores(one)
    wanted = brute(one, true, expected, np.ones(SEQUENCES))
    assert wanted["correlation"] == pytest.approx(pearsonr(true.ravel(), expected.ravel()).statistic)
    for name in NAMES:
        assert found[f"{name}_corpus"] == pytest.approx(wanted[name], abs=1e-6)
        assert found[f"{name}_corpus_low"] == pytest.approx(found[f"{name}_corpus"], abs=1e-9)
        assert found[f"{name}_corpus_high"] == pytest.approx(found[f"{name}_corpus"], abs=1e-9)
    assert found["firing_corpus"] == pytest.approx((true > one.kept.fires_above).mean())


@pytest.mark.parametrize("seed", range(4))
def test_where_few_are_kept_each_of_the_random_ones_stands_for_several(seed: int) -> None:
    one, _, _ = a_unit(seed, 6, 20)
    rows = one.report.rows
    others = int((~rows["is_top"]).sum())
    weights = np.where(rows["is_top"], 1.0, (SEQUENCES - 6) / others)
    shape = (len(rows), int(rows["length"][0]))
    wanted = brute(
        one, one.report.true.reshape(shape).astype(float), one.report.expected.reshape(shape).astype(float), weights
    )
    found = corpus_scores(one)
    for name in NAMES:
        assert found[f"{name}_corpus"] == pytest.approx(wanted[name], abs=1e-6)
        assert found[f"{name}_corpus_low"] < found[f"{name}_corpus"] < found[f"{name}_corpus_high"]


def test_a_random_sequence_that_is_top_as_well_counts_as_top() -> None:
    is_top, is_random = np.array([True, True, False, False]), np.array([False, True, True, True])
    drawn = Drawn.of(is_top, is_random, total=42, random=3)
    assert drawn == Drawn(total=42, top=2, random=2, known=2)
    assert drawn.weights(is_top).tolist() == [1, 1, 20, 20]


def test_a_drawn_sequence_without_a_token_that_counts_still_stands_for_others_like_it() -> None:
    is_top = np.array([True, False, False])
    assert Drawn.of(is_top, ~is_top, total=41, random=4).weights(is_top).tolist() == [1, 10, 10]


def test_a_sequence_that_could_not_be_simulated_is_stood_for_by_others_of_its_kind() -> None:
    drawn = Drawn(total=42, top=2, random=4, known=4)
    assert drawn.weights(np.array([True, False, False])).tolist() == [2, 20, 20]
    by_group = drawn.weights(np.array([True, False, True, True, False]), np.array([5, 5, 9, 9, 9]))
    assert by_group.tolist() == [2, 40, 1, 1, 40]


@pytest.mark.parametrize(
    "drawn", [Drawn(), Drawn(total=42, top=2), Drawn(total=1, top=2), Drawn(total=42, top=0, random=0, known=0)]
)
def test_what_the_rest_of_the_split_is_like_cannot_be_told_without_a_sample_of_it(drawn: Drawn) -> None:
    one, _, _ = a_unit(0, 6, 20)
    assert np.isnan(drawn.weights(np.array([True, True]))).all()
    tops_alone = replace(one, report=one.report.where(one.report.rows["is_top"]), kept=Kept(drawn, drawn, 0.5))
    found = corpus_scores(tops_alone)
    assert all(np.isnan(found[name]) for name in ALL_OF_THEM)


def test_a_split_that_is_all_top_needs_no_random_sequences() -> None:
    assert Drawn(total=2, top=2).weights(np.array([True, True])).tolist() == [1, 1]


def test_without_a_threshold_there_is_no_overlap_and_still_a_correlation() -> None:
    one, _, _ = a_unit(0, 6, 20)
    found = corpus_scores(replace(one, kept=replace(one.kept, fires_above=np.nan)))
    assert np.isfinite([found["correlation_corpus"], found["cosine_corpus"]]).all()
    assert np.isnan([found["f1_corpus"], found["iou_corpus"], found["auprc_corpus"], found["firing_corpus"]]).all()


def test_the_threshold_of_f1_is_the_best_one_on_select_alone() -> None:
    one, _, _ = a_unit(1, 6, 20)
    rows, weights = one.select.rows, one.kept.select.weights(one.select.rows["is_top"])
    shape = (len(rows), int(rows["length"][0]))
    fires = (one.select.true > one.kept.fires_above).astype(float)
    w, expected = np.repeat(weights, shape[1]), one.select.expected.astype(float)

    def f1(threshold: float) -> float:
        said = (expected >= threshold).astype(float)
        return float(2 * (w * fires * said).sum() / (w * (fires + said)).sum())

    best = max(map(f1, np.unique(expected)))
    assert f1(firing_threshold(one)) == pytest.approx(best)
    elsewhere = replace(one, report=replace(one.report, true=-one.report.true))
    assert firing_threshold(elsewhere) == firing_threshold(one)


@pytest.mark.slow
def test_intervals_cover_and_estimates_are_not_biased_with_as_many_random_sequences_as_words_get() -> None:
    found = covered_on_corpus(400, 10, 40)
    for name, one in found.items():
        assert abs(one.bias) < 0.02, name
        assert one.error < 0.06, name
    assert found["correlation"].telling >= 0.91
    assert found["auprc"].telling >= 0.9
