"""Which of the sequences tried become hard negatives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.schemas import NEGATIVES
from stages.record.negatives import choose, rows_of, wanted_of_kind

LOWS: Mapping[tuple[int, int], Any] = {
    (7, seq_id): np.array([np.nan, first, second], np.float32)
    for seq_id, first, second in [
        (1, 4, 0),
        (2, 0, 4.9),
        (3, 5, 0),
        (4, -9, 1),
        (5, np.nan, np.nan),
        (6, 0, 0),
    ]
}


@pytest.mark.parametrize(("polarity", "similar", "neighbour"), [("+", [1, 2], [4, 6]), ("-", [1, 2], [3, 6])])
def test_only_sequences_below_the_limit_count_and_each_for_one_kind(
    polarity: str, similar: list[int], neighbour: list[int]
) -> None:
    tried = {"similar": [5, 1, 2, 4], "neighbour": [1, 5, 3, 4, 6] if polarity == "+" else [4, 2, 3, 6]}
    found = choose((7, polarity, "explain"), tried, LOWS, 5.0, wanted_of_kind(4))
    kinds = {kind: [one for one in found if one["band"] == kind] for kind in ("similar", "neighbour")}
    assert [one["seq_id"] for one in kinds["similar"]] == similar
    assert [one["seq_id"] for one in kinds["neighbour"]] == neighbour
    assert [one["rank"] for one in kinds["neighbour"]] == [0, 1]
    assert kinds["neighbour"][0]["peak"] == {4: 2, 3: 2}[neighbour[0]]


def test_the_odd_one_is_similar() -> None:
    assert [wanted_of_kind(count) for count in (1, 4, 5)] == [
        {"similar": 1, "neighbour": 0},
        {"similar": 2, "neighbour": 2},
        {"similar": 3, "neighbour": 2},
    ]


def test_no_negatives_are_an_empty_table() -> None:
    assert rows_of("layers.0.mlp", [], 11).equals(NEGATIVES.schema.empty_table())
