"""The full token table: the mean of every token over the explain split, shrunk by one count."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context
from pipeline.schemas import CORPUS, UNITS, TableSchema
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.settings import SECTIONS
from stages.simulate.simulate_units import SIMULATE
from stages.token_means import TOKEN_MEANS, TokenMeans, means_of_units

M = "layers.0.mlp"
TEXTS = {3: " of", 5: "a", 6: "a", 7: '"', 8: " rare", 9: " "}


def config(folder: Path) -> RunConfig:
    values = {
        "run": {"name": "r", "folder": str(folder)},
        "subject": {"model": "m", "modules": [M]},
        "corpus": {"source": "c.txt"},
    }
    return parse_config(values, "r.toml", SECTIONS)


def means(folder: Path, polarity: str = "+", **row: Any) -> TokenMeans:
    """Those of unit 4, given its row; without one, as of an import."""
    run = config(folder)

    def write(table: TableSchema, rows: list[dict[str, Any]]) -> None:
        publish(Tables(run.root).file(table, "part-00000"), table.of_rows(rows), table, {})

    ids, words = list(TEXTS), list(TEXTS.values())
    write(CORPUS, [{"seq_id": 0, "split": "explain", "doc_id": "d", "start": 0, "token_ids": ids, "tokens": words}])
    top = [{"token_id": 3, "token": " of", "mean_activation": 2.0, "count": 4}]
    write(UNITS, [{"module": M, "index": 4, "top_tokens": top, "bottom_tokens": top}])
    if row:
        write(TOKEN_MEANS, [{"module": M, "index": 4, **row}])
    return means_of_units(Context(run, SIMULATE), M, [4], polarity)[4]


def test_each_mean_is_shrunk_by_one_count_towards_that_of_the_unit(tmp_path: Path) -> None:
    found = means(tmp_path, token_ids=[3, 5, 8], counts=[5, 4, 1], means=[4.0, -1.0, 4.0])  # the unit's mean is 2
    assert found.means == pytest.approx({" of": 22 / 6, "a": -2 / 5, " rare": 6 / 2})
    assert found.rest == pytest.approx(2.0)


def test_tokens_that_look_alike_are_one(tmp_path: Path) -> None:
    found = means(tmp_path, token_ids=[3, 5, 6], counts=[2, 1, 3], means=[0.0, 4.0, 0.0])
    assert found.means == pytest.approx({" of": (4 / 6) / 3, "a": (4.0 + 4 / 6) / 5})


def test_the_other_polarity_is_that_of_the_mirrored_unit(tmp_path: Path) -> None:
    found = means(tmp_path, "-", token_ids=[3, 5], counts=[2, 2], means=[1.0, -3.0])
    assert found.means == pytest.approx({" of": (-2 + 1) / 3, "a": (6 + 1) / 3})
    assert found.top == "a"


def test_the_top_token_is_one_that_tells_much_and_not_the_rarest(tmp_path: Path) -> None:
    found = means(tmp_path, token_ids=[3, 5, 8], counts=[40, 20, 1], means=[0.0, 2.0, 3.0])
    assert found.top == "a"


def test_a_quote_or_a_blank_is_no_top_token(tmp_path: Path) -> None:
    found = means(tmp_path, token_ids=[3, 5, 7, 9], counts=[5, 5, 5, 5], means=[1.0, 0.0, 9.0, 8.0])
    assert found.top is None
    assert means(tmp_path / "b", token_ids=[3, 5, 7], counts=[5, 50, 5], means=[2.0, 0.0, 9.0]).top == " of"


def test_tokens_that_were_not_recorded_one_by_one_have_their_own_mean(tmp_path: Path) -> None:
    found = means(tmp_path, token_ids=[-1, 3], counts=[6, 2], means=[-1.0, 3.0])
    assert (found.means, found.rest) == ({" of": 2.0}, -1.0)


def test_a_mean_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    assert means(tmp_path, token_ids=[3, 5], counts=[2, 2], means=[None, 1.0]).means == {"a": 1.0}


def test_of_an_imported_unit_the_listed_tokens_are_known(tmp_path: Path) -> None:
    assert means(tmp_path) == TokenMeans({" of": 2.0}, 0.0, " of")
