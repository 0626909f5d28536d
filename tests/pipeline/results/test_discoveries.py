"""What p-values show once it is taken into account how many there are, and what few controls cannot show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipeline.commands.query import final_report
from pipeline.commands.report import make_report
from pipeline.commands.status import status_text
from pipeline.config.run_file import parse_config
from pipeline.results.discoveries import Discoveries, discoveries
from stages import REPORTS
from stages.score.run_report import REPORT
from stages.settings import SECTIONS
from tests.pipeline.report.made_up_run import write_run


def found(p_values: Sequence[float | None], controls: int = 999, **columns: Any) -> list[Discoveries]:
    count = len(p_values)
    rows = {
        "module": ["layers.0.mlp"] * count,
        "explainer": ["e"] * count,
        "simulator": ["s"] * count,
        "n_shuffled": [controls] * count,
        "p_value": p_values,
    }
    with duckdb.connect() as connection:
        connection.register("scores", pa.table(rows | columns))
        return discoveries(connection, REPORT)


def test_of_chance_alone_next_to_nothing_is_found() -> None:
    rng = np.random.default_rng(0)
    runs = [found(rng.uniform(size=72).tolist())[0].found for _ in range(40)]
    assert np.mean([any_found > 0 for any_found in runs]) <= 0.15, "the false discovery rate is that of 0.05"


def test_what_is_far_better_is_found_among_chance() -> None:
    rng = np.random.default_rng(1)
    [one] = found([*([0.001] * 20), *rng.uniform(0.1, 1, 52).tolist()])
    assert (one.tested, one.found) == (72, 20)
    assert one.sentence.startswith("20 of 72 do better than their controls, at a false discovery rate of 5%")


def test_each_explainer_and_simulator_is_tested_for_itself_and_scores_without_a_p_value_are_not() -> None:
    ways = found([0.001, None, 0.5, 0.6], simulator=["a", "a", "b", "b"])
    assert [(one.methods, one.tested, one.found) for one in ways] == [
        ({"explainer": "e", "simulator": "a"}, 1, 1),
        ({"explainer": "e", "simulator": "b"}, 2, 0),
    ]


def test_three_controls_can_show_nothing_and_a_word_says_so() -> None:
    [one] = found([0.25] * 10, controls=3)
    assert one.found == 0
    assert (
        "with 3 controls no p-value can be below 0.250, so none can be found; raise simulate.controls" in one.sentence
    )


def test_twenty_controls_find_many_or_none() -> None:
    [one] = found([*([1 / 21] * 60), *([0.5] * 12)], controls=20)
    assert one.found == 0
    assert "none is found unless 69 do better than all of theirs" in one.sentence
    [many] = found([*([1 / 21] * 69), *([0.5] * 3)], controls=20)
    assert many.found == 69
    assert "more" not in found([*([0.001] * 20), *([0.5] * 20)])[0].sentence


def test_report_status_and_pages_say_it(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 4)
    said = "of 4 do better than their controls, at a false discovery rate of 5% (Benjamini-Hochberg)"
    assert said in final_report(root, 0, REPORTS)
    config = parse_config(
        {
            "run": {"name": "run", "folder": str(tmp_path)},
            "subject": {"model": "m", "modules": ["layers.0.mlp"]},
            "corpus": {"source": "c.txt"},
        },
        "r.toml",
        SECTIONS,
    )
    assert f"statistics, word: 0 {said}" in status_text(config, {}, REPORTS)
    make_report(root, REPORTS)
    assert said in (root / "report" / "data" / "run.js").read_text()


@pytest.mark.parametrize("controls", [19, 20, 99, 1000])
def test_as_many_as_the_words_name_are_needed(controls: int) -> None:
    """One less than the number that the words name is found by no p-value however small, with that number all are."""
    needed = next(
        (n for n in range(1, 73) if found([1 / (1 + controls)] * n + [1.0] * (72 - n), controls)[0].found), None
    )
    words = found([1.0] * 72, controls)[0].limit
    assert (f"unless {needed} do better" in words) == (needed is not None and needed > 1)
