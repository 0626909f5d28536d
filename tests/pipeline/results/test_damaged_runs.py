"""Whatever looks at a run notices a bit that has turned over, and names the file."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import open_run
from pipeline.__main__ import app
from pipeline.errors import UserError
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import serving
from tests.pipeline.storage.damage import flip

NAMED = r"(?s)scores/part-00000\.parquet is damaged: .*checksum.*pipeline repair"
LOOKING = {
    "query": ["query", "SELECT max(correlation) FROM scores", "--run", "{run}"],
    "unsafe": ["query", "SELECT max(correlation) FROM scores", "--unsafe", "--run", "{run}"],
    "ready": ["query", "worst", "--run", "{run}"],
    "show": ["show", "layers.0.mlp", "1", "--run", "{run}"],
    "compare": ["compare", "{run}", "{other}"],
    "report": ["report", "--run", "{run}"],
    "plots": ["plots", "--run", "{run}"],
    "openai": ["export", "openai", "--run", "{run}", "--to", "{folder}/out"],
    "dataset": ["export", "dataset", "--run", "{run}", "--to", "{folder}/out"],
}


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    run = write_run(tmp_path / "run", 4)
    flip(run / "scores" / "part-00000.parquet", "correlation")
    return run


@pytest.mark.parametrize("command", LOOKING)
def test_commands_name_a_damaged_file_and_what_makes_it_again(spoilt: Path, tmp_path: Path, command: str) -> None:
    other = write_run(tmp_path / "other", 4) if command == "compare" else tmp_path
    words = [word.format(run=spoilt, other=other, folder=tmp_path) for word in LOOKING[command]]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UserError), done.output
    with pytest.raises(UserError, match=NAMED):
        raise done.exception
    assert not (tmp_path / "out").exists()


def test_so_does_a_run_opened_from_python(spoilt: Path) -> None:
    run = open_run(spoilt)
    with pytest.raises(UserError, match=NAMED):
        run.table("scores")
    with pytest.raises(UserError, match=NAMED):
        run.compare(run)
    with pytest.raises(OSError, match="CRC checksum"):
        run.dataset("scores").to_table()
    with pytest.raises(Exception, match="CRC checksum"):
        run.sql("SELECT max(correlation) FROM scores").fetchall()
    assert len(run.table("units")) == 4, "what is whole can be read"


def test_so_does_a_server(spoilt: Path) -> None:
    with serving(spoilt) as served:
        for reply in (served.query("SELECT max(correlation) FROM scores"), served.ask("/api/units")):
            assert reply.status == 400
            assert "part-00000.parquet is damaged" in reply.json["error"]


def test_a_connection_sees_the_files_that_are_there_when_it_is_asked_for(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "run", 4))
    count = "SELECT count(*) FROM scores"
    assert run.sql(count).fetchall() == [(4,)]
    write_run(tmp_path / "more", 6)
    (tmp_path / "more" / "scores" / "part-00000.parquet").rename(tmp_path / "run" / "scores" / "part-00001.parquet")
    assert run.sql(count).fetchall() == [(10,)]
