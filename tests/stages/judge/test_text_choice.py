"""Judges are asked about texts of every strength, and about texts on which a unit surely does not fire."""

import numpy as np
import pytest

from stages.judge.text_choice import Chosen, choose_texts, spread


def chosen(peaks: list[float], drawn: int | None = None, most: int = 50, threshold: float = 0.0) -> Chosen:
    """What is chosen where the first `drawn` texts are a uniform sample, all of them unless given."""
    sampled = np.arange(len(peaks)) < (len(peaks) if drawn is None else drawn)
    return choose_texts(np.asarray(peaks, np.float32), sampled, threshold, most, np.random.default_rng(0))


def test_five_texts_of_each_tenth_are_chosen_where_there_are_fifty() -> None:
    found = chosen([float(n) for n in range(1, 121)] + [0.0] * 200)
    deciles = [decile for _, decile in found.fires]
    assert sorted(deciles) == [decile for decile in range(1, 11) for _ in range(5)]
    for place, decile in found.fires:
        assert (120 - (place + 1)) // 12 + 1 == decile, "tenths of all texts on which the unit fires"
    assert len(found.quiet) == 50
    assert all(place >= 120 for place in found.quiet)


@pytest.mark.parametrize("wanted", [10, 20, 35])
def test_the_first_ones_are_spread_over_the_tenths_alike(wanted: int) -> None:
    found = spread(np.arange(200), 50, np.random.default_rng(0))[:wanted]
    counts = np.bincount([decile for _, decile in found], minlength=11)[1:]
    assert counts.max() - counts.min() <= 1


def test_a_rare_unit_has_all_its_texts_each_once() -> None:
    found = chosen([3.0, 0.0, 1.0, 2.0, 0.0, 0.0])
    assert sorted(place for place, _ in found.fires) == [0, 2, 3]
    assert sorted(found.quiet) == [1, 4, 5]
    assert (found.fires_above, found.share_firing) == (0.0, 0.5)


def test_a_dense_unit_is_quiet_below_the_median_and_fires_in_the_upper_quarter() -> None:
    found = chosen([1.0 + n for n in range(200)])
    assert min(place for place, _ in found.fires) >= 150
    assert max(found.quiet) < 100
    assert found.share_firing == 0.25


def test_the_quantiles_are_those_of_the_uniform_sample_alone() -> None:
    sample, strongest = [1.0 + n for n in range(100)], [1000.0 + n for n in range(60)]
    found = chosen(sample + strongest, drawn=100)
    assert found.fires_above == pytest.approx(1 + 0.75 * 99)
    assert {place for place, _ in found.fires} & set(range(100, 160)), "strong texts of the record are among them"


def test_a_unit_that_never_fires_has_no_text_that_fits() -> None:
    found = chosen([-1.0, -2.0, 0.0])
    assert not found.fires
    assert len(found.quiet) == 3


def test_weak_texts_stay_below_a_fifth_of_the_largest_the_strongest_first() -> None:
    found = chosen([10.0, 1.0, 2.0, 3.0, 0.0, 1.5], most=3)
    assert found.weak == [2, 5, 1]


def test_the_threshold_of_the_record_is_what_counts_as_firing() -> None:
    found = chosen([0.5, 0.4, 2.0, 0.1, 0.2], threshold=1.0)
    assert [place for place, _ in found.fires] == [2]
    assert sorted(found.quiet) == [0, 1, 3, 4]
