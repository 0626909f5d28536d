"""The token lookup table, written as an explanation and read back as a simulator."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.simulate.lookup import LookupSimulator, TokenTable
from stages.simulate.simulation import SCALE
from tests.tiers import examples

TABLE = {" of": 4.0, "\n": 1.0, " no": -2.0}


def written(means: dict[str, float], rest: float | None = None) -> str:
    return TokenTable(tokens=list(means.items()), rest=rest).model_dump_json()


def predict(text: str, tokens: list[str]) -> np.ndarray:
    expected = asyncio.run(LookupSimulator().simulate(text, [tokens]))[0].expected
    assert expected is not None
    return expected


def test_each_token_gets_its_mean_from_the_lowest_to_the_highest_wherever_it_stands() -> None:
    text = written(TABLE, 0.4)
    assert predict(text, [" of", "\n", " no", " else", " of"]).tolist() == [10.0, 5.0, 0.0, 4.0, 10.0]


def test_the_rest_is_zero_where_its_mean_is_not_known() -> None:
    assert predict(written({" of": 4.0}), [" of", " else"]).tolist() == [10.0, 0.0]
    assert predict('{"tokens": [[" of", -4]]}', [" of", " else"]).tolist() == [0.0, 10.0]


def test_means_below_zero_are_told_apart() -> None:
    assert predict(written({"a": -4.0, "b": -2.0}, -3.0), ["a", "b", "c"]).tolist() == [0.0, 10.0, 5.0]


@pytest.mark.parametrize("means", [{}, {"a": 0.0}])
def test_a_table_of_one_mean_predicts_nothing(means: dict[str, float]) -> None:
    assert predict(written(means), ["a", "b"]).tolist() == [0.0, 0.0]


def test_the_coverage_is_one_and_every_sequence_has_its_own_length() -> None:
    results = asyncio.run(LookupSimulator().simulate(written(TABLE), [["a"] * 3, [], [" of"]]))
    assert [(result.coverage.tolist(), result.error) for result in results if result.coverage is not None] == [
        ([1.0] * 3, ""),
        ([], ""),
        ([1.0], ""),
    ]


NO_TABLES = [
    *("words about music", "", "3", "null", "[]", "{}", "[" * 100_000),
    '{"tokens": [["a"]], "rest": 0}',
    '{"tokens": 3, "rest": 0}',
    '{"tokens": [["a", "b"]], "rest": 0}',
    '{"tokens": [["a", NaN]], "rest": 0}',
    '{"tokens": [], "rest": 1e999}',
    '{"tokens": [["a", 1' + "0" * 400 + ']], "rest": 0}',
]


@pytest.mark.parametrize("text", NO_TABLES)
def test_any_other_text_is_an_error_and_no_prediction(text: str) -> None:
    results = asyncio.run(LookupSimulator().simulate(text, [["a"], ["b"]]))
    assert [(result.expected, result.coverage) for result in results] == [(None, None)] * 2
    assert all("no token table" in result.error for result in results)


@settings(max_examples=examples(300), deadline=None)
@given(
    means=st.dictionaries(st.text(max_size=4), st.floats(-1e6, 1e6, allow_subnormal=False), max_size=8),
    rest=st.none() | st.floats(-1e6, 1e6, allow_subnormal=False),
)
def test_predictions_are_linear_in_the_means(means: dict[str, float], rest: float | None) -> None:
    found = predict(written(means, rest), [*means, "not in the table"])
    true = np.asarray([*means.values(), rest or 0.0])
    assert found.min() >= 0
    assert found.max() <= SCALE * (1 + 1e-6)
    if np.ptp(true) > 1e-6:
        np.testing.assert_allclose(found, SCALE * (true - true.min()) / np.ptp(true), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_written_as_json_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number"):
        written({"a": float("nan")})
