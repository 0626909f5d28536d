"""A sequence belongs to one split for every unit, and evidence shows what explainers need."""

from collections import Counter

import numpy as np

from pipeline.evidence import SPLITS, Evidence, Exemplar, split_of


def test_half_of_the_sequences_are_for_explaining_and_a_quarter_for_each_of_the_others() -> None:
    counts = Counter(split_of(seq_id) for seq_id in range(4000))
    assert counts == {"explain": 2000, "select": 1000, "report": 1000}
    assert set(counts) == set(SPLITS)


def test_every_split_begins_within_the_first_sequences() -> None:
    assert {split_of(seq_id) for seq_id in range(4)} == set(SPLITS)


def test_the_peak_is_the_first_of_the_largest_and_never_a_position_left_out() -> None:
    activations = np.array([np.nan, 2.0, 5.0, 5.0], dtype=np.float32)
    assert Exemplar(0, "top", list("abcd"), activations).peak == 2


def test_a_band_keeps_its_order() -> None:
    exemplars = [Exemplar(i, band, ["a"], np.zeros(1, np.float32)) for i, band in enumerate(["top", "random", "top"])]
    assert [exemplar.seq_id for exemplar in Evidence("m", 0, "+", exemplars, []).band("top")] == [0, 2]
