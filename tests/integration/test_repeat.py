"""`repeat` runs other seeds on the same units and shows how much of a score is luck."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tests.integration.reduced import call


@pytest.mark.slow
def test_a_run_is_repeated_with_another_seed_on_the_same_units(copied: Path) -> None:
    done = call("repeat", "--config", str(copied), "--times", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^correlation +statistics +word .* 2$", done.stdout, flags=re.M), "a row of two runs"
    first, other = (pd.read_parquet(copied.parent / name / "scores") for name in ("reduced", "reduced-seed1"))
    keys = ["module", "index", "polarity"]
    assert first[keys].drop_duplicates().values.tolist() == other[keys].drop_duplicates().values.tolist()
    assert not first["correlation"].equals(other["correlation"])
    seen, kept = (
        pd.read_parquet(copied.parent / name / "corpus").set_index("seq_id")["doc_id"]
        for name in ("reduced", "reduced-seed1")
    )
    assert not seen.equals(kept), "other sequences, in other splits"
    report = call("run", "--config", str(copied))
    assert "Over 2 runs with other seeds (statistics): mean correlation" in report.stdout
