"""Scores on the corpus as it is, of a real run: certain where all sequences are kept, and about these where few are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.integration.reduced import call, write_run_file

COUNTS = "record.random={ explain = 8, select = 6, report = %d }"
UNIT = ["module", "index"]


def scores(folder: Path, random: int) -> pd.DataFrame:
    """Those of the reduced demo with so many random report sequences."""
    file = write_run_file(folder)
    done = call("run", "--config", str(file), "--set", COUNTS % random)
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(folder / "reduced" / "scores").query("status == 'ok'")
    return rows.set_index(UNIT).sort_index()


@pytest.mark.slow
def test_what_is_estimated_from_few_sequences_is_what_all_of_them_have(tmp_path: Path) -> None:
    whole, few = scores(tmp_path / "whole", 96), scores(tmp_path / "few", 12)
    for name in ("correlation", "cosine"):
        value, low, high = (whole[f"{name}_corpus{end}"] for end in ("", "_low", "_high"))
        np.testing.assert_allclose(low, value, atol=1e-9)
        np.testing.assert_allclose(high, value, atol=1e-9)
    np.testing.assert_allclose(whole["correlation_corpus"], whole["correlation_random"], atol=1e-6)
    same = whole.index.intersection(few.index)
    same = same[(whole.loc[same, "text"] == few.loc[same, "text"]).to_numpy()]
    assert len(same) > 4
    error = few.loc[same, "correlation_corpus"] - whole.loc[same, "correlation_corpus"]
    assert abs(error.mean()) < 0.06
    assert (abs(error) < 0.25).all()
