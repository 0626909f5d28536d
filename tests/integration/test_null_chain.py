"""The whole chain, from recording to p-values, on units that can be explained, and on the same units with nothing to find."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from pipeline import open_run
from pipeline.commands.run import run_pipeline
from pipeline.config.run_file import parse_config
from pipeline.results.discoveries import discoveries
from pipeline.results.run_comparison import mean_interval
from stages import REPORTS, STAGES
from stages.settings import SECTIONS
from tests.integration.null_p_values import UNIT, evenness, p_values
from tests.integration.planted_words import FILLER, RECORD, WORDS, documents, save_tokenizer

UNITS = 80
CONTROLS = 19
ALL = [*FILLER, *(word for listed in WORDS.values() for word in listed)]
CHOSEN = np.random.default_rng(0).permuted(np.tile(np.arange(len(ALL)), (UNITS, 1)), axis=1)[:, :4]
"""(U, 4) the words that each unit fires on."""


def fires_on(texts: list[str]) -> npt.NDArray[np.float64]:
    """(N, U) 4, 3, 2 and 1 for the words of each unit, at the end of a text."""
    values = np.zeros((len(texts), UNITS))
    places = {word: place for place, word in enumerate(ALL)}
    for row, text in enumerate(texts):
        if (place := places.get(text.split()[-1] if text.split() else "")) is not None:
            units, ranks = np.nonzero(np.equal(CHOSEN, place))
            values[row, units] = 4.0 - ranks
    return values


def scores(folder: Path, null: str) -> tuple[pd.DataFrame, int]:
    """The scores of all units, and how many do better than their controls."""
    config = parse_config(
        {
            "run": {"name": null, "folder": str(folder), "null": null},
            "subject": {
                "model": str(folder / "model"),
                "modules": ["black_box:words"],
                "black_boxes": {
                    "words": {"call": "tests.integration.test_null_chain:fires_on", "units": UNITS, "window": 1}
                },
            },
            "corpus": {"source": str(folder / "texts.jsonl"), "seq_len": 32, "min_tokens": 16},
            "record": RECORD,
            "simulate": {"controls": CONTROLS},
            "score": {"bootstrap": 100},
        },
        "null.toml",
        SECTIONS,
    )
    assert run_pipeline(config, STAGES, list(STAGES)) == 0
    run = open_run(config.root)
    [found] = discoveries(run.connection, REPORTS[0])
    return run.scores.query("status != 'not_selected'"), found.found


@pytest.mark.slow
def test_where_there_is_nothing_to_find_the_chain_finds_nothing(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "model")
    lines: list[Any] = [f'{{"text": "{text}"}}' for text in documents(160)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    true, found = scores(tmp_path, "none")
    assert found > 0.9 * UNITS
    assert true["correlation"].mean() > 0.5
    null, found = scores(tmp_path, "permuted")
    assert found <= 0.05 * UNITS
    low, high = mean_interval(null["correlation"].dropna().to_numpy())
    assert low < 0 < high
    assert len(null["p_value"].dropna()) > 0.9 * UNITS
    again = p_values(tmp_path / "permuted")
    assert evenness(again) > 0.01
    both = again.merge(null, on=UNIT)
    assert len(both) == len(again)
    np.testing.assert_allclose(both["high"], both["p_value"], err_msg="what is published is worked out as here")
