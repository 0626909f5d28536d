"""A sequence belongs to one split for every unit, and evidence shows what explainers need."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.evidence import SPLITS, Detail, Evidence, Exemplar, Pair, split_of


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


VALUES = st.lists(st.sampled_from([np.nan, -3.0, 0.0, 1.0, 2.0, 2.5]), min_size=1, max_size=12)


def exemplar(values: list[float], seq_id: int = 0, band: str = "top") -> Exemplar:
    return Exemplar(seq_id, band, [f"t{place}" for place in range(len(values))], np.array(values, np.float32))


@given(values=VALUES, context=st.integers(1, 14))
def test_a_context_keeps_activations_beside_their_tokens_and_the_peak_inside(values: list[float], context: int) -> None:
    whole = exemplar(values)
    part = whole.around(context)
    assert len(part.tokens) == len(part.activations) == min(context, len(values))
    for place, (token, value) in enumerate(zip(part.tokens, part.activations, strict=True)):
        assert token == f"t{part.start + place}"
        assert np.array_equal(value, whole.activations[part.start + place], equal_nan=True)
    if np.isfinite(values).any():
        assert part.start + part.peak == whole.peak


def test_a_context_is_centred_on_the_peak_and_shifted_at_the_ends() -> None:
    starts = {peak: exemplar([5.0 if n == peak else 0.0 for n in range(10)]).around(4).start for peak in range(10)}
    assert starts == {0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6, 9: 6}
    assert exemplar([0, 0, 0, 9, 0, 0, 0]).around(3).tokens == ["t2", "t3", "t4"]


def test_without_a_context_or_with_a_long_one_the_sequence_is_whole() -> None:
    whole = exemplar([0.0, 1.0, 0.0])
    assert whole.around(None) is whole
    assert whole.around(3) is whole


def test_details_are_cut_with_their_exemplar() -> None:
    whole = exemplar([0, 0, 0, 0, 9, 0, 0, 0], seq_id=3)
    attribution = np.arange(8, dtype=np.float32)
    detail = Detail(attribution, [Pair(3, 4, 5.0), Pair(1, 4, 4.0), Pair(4, 5, 3.0), Pair(4, 7, 2.0)])
    unit = Evidence("m", 0, "+", [whole], [], [exemplar([7, 0, 0, 0, 0], 6, "similar")], {3: detail, 99: detail})
    cut = unit.around(4)
    assert cut.exemplars[0].tokens == ["t2", "t3", "t4", "t5"]
    assert cut.details.keys() == {3}
    assert cut.details[3].attribution is not None
    assert cut.details[3].attribution.tolist() == [2, 3, 4, 5]
    assert cut.details[3].pairs == [Pair(1, 2, 5.0), Pair(2, 3, 3.0)]
    assert cut.negatives[0].tokens == ["t0", "t1", "t2", "t3"]
    again = cut.around(2)
    assert again.exemplars[0].tokens == ["t3", "t4"]
    assert again.details[3].pairs == [Pair(0, 1, 5.0)]
    assert Detail().within(0, 3) == Detail()
