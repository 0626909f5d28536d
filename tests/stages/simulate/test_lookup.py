"""The token lookup table, written as an explanation and read back as a simulator."""

import asyncio
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evidence import TopToken
from stages.simulate.lookup import LookupSimulator, render_table
from stages.simulate.simulation import SCALE
from tests.tiers import examples

TABLE = [TopToken(" of", 4.0, 10), TopToken("\n", 1.0, 5), TopToken(" no", -2.0, 3)]


def predict(text: str, tokens: list[str]) -> np.ndarray:
    expected = asyncio.run(LookupSimulator().simulate(text, [tokens]))[0].expected
    assert expected is not None
    return expected


def test_each_token_gets_its_mean_scaled_to_ten_wherever_it_stands() -> None:
    text = render_table(TABLE, rest_mean=0.5)
    assert predict(text, [" of", "\n", " no", " else", " of"]).tolist() == [10.0, 2.5, 0.0, 1.25, 10.0]


def test_the_rest_is_zero_where_its_mean_is_not_known() -> None:
    assert predict(render_table(TABLE), [" of", " else"]).tolist() == [10.0, 0.0]


def test_ids_of_one_text_become_one_token_weighed_by_count() -> None:
    text = render_table([TopToken("\ufffd", 4.0, 1), TopToken("\ufffd", 1.0, 3), TopToken("a", 3.5, 1)], None)
    assert json.loads(text)["tokens"] == [["\ufffd", 1.75], ["a", 3.5]]
    assert predict(text, ["\ufffd", "a"]).tolist() == [5.0, 10.0]


@pytest.mark.parametrize("table", [[], [TopToken("a", -1.0, 2)], [TopToken("a", 0.0, 2)]])
def test_a_table_without_a_positive_mean_predicts_zero(table: list[TopToken]) -> None:
    assert predict(render_table(table, -0.5), ["a", "b"]).tolist() == [0.0, 0.0]


def test_the_coverage_is_one_and_every_sequence_has_its_own_length() -> None:
    results = asyncio.run(LookupSimulator().simulate(render_table(TABLE), [["a"] * 3, [], [" of"]]))
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
def test_predictions_are_proportional_to_positive_means(means: dict[str, float], rest: float | None) -> None:
    tokens = [*means, "not in the table"]
    found = predict(render_table([TopToken(token, mean, 1) for token, mean in means.items()], rest), tokens)
    true = np.maximum([*means.values(), 0.0 if rest is None else rest], 0)
    assert found.min() >= 0
    assert found.max() <= SCALE
    if true.max() > 0:
        np.testing.assert_allclose(found, SCALE * true / true.max(), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_written_as_json_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number"):
        render_table([TopToken("a", float("nan"), 1)])
