"""A real run is found whole, and what a disk spoils in it is made again as it was."""

from pathlib import Path

import pytest

from tests.integration.reduced import all_rows, call
from tests.pipeline.storage.damage import flip


def test_nothing_is_wrong_with_a_finished_run(finished: Path, root: Path) -> None:
    for arguments in (["--config", str(finished)], [str(root)]):
        done = call("verify", *arguments)
        assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stdout
        assert "nothing is wrong" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "column"), [("explanations", "text"), ("exemplars", "activations"), ("corpus", "tokens")]
)
def test_what_is_spoilt_is_moved_away_and_made_again_as_it_was(
    copied: Path, root: Path, table: str, column: str
) -> None:
    run = copied.parent / "reduced"
    others = {path: path.stat().st_mtime_ns for path in run.glob("s*/*.parquet")}
    spoilt = sorted((run / table).glob("*.parquet"))[-1]
    flip(spoilt, column)
    found = call("verify", "--config", str(copied))
    assert found.returncode == 1
    assert f"{spoilt}\n    in the column {column}, a checksum does not fit" in found.stdout
    repaired = call("repair", "--config", str(copied))
    assert f"run --config {copied}" in repaired.stdout
    assert len(list(run.glob(f"_damaged/*/{table}/{spoilt.name}"))) == 1
    assert call("run", "--config", str(copied)).returncode == 0
    assert call("verify", "--config", str(copied)).returncode == 0
    expected = all_rows(root)
    assert all(rows.equals(expected[name]) for name, rows in all_rows(run).items())
    assert others == {path: path.stat().st_mtime_ns for path in others}, "what was made from the same rows stays"
