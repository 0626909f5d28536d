"""A run is made again from what its folder keeps: the same rows, nothing is asked of an endpoint, and a difference is told."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.results.run_folder import open_run
from pipeline.serve.live_run import LiveRun
from pipeline.storage.by_hand import FOLDER, read_by_hand, save_by_hand
from stages import REPORTS
from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, files_with, sections, write_run
from tests.integration.made_up_model import reply
from tests.integration.reduced import all_rows, call
from tests.pipeline.llm.endpoint.loopback import Loopback


@pytest.fixture(scope="module")
def asked(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that has asked an endpoint, which is gone by now."""
    folder = tmp_path_factory.mktemp("asked")
    with Loopback(reply) as endpoint, pytest.MonkeyPatch.context() as environment:
        environment.setenv(KEY_VARIABLE, KEY)
        part = sections(endpoint.base_url, "loopback", "max_activation", "generated", 2)
        done = call("run", "--config", str(write_run(folder, recorded, part)))
        assert done.returncode == 0, done.stderr
        assert endpoint.requests > 0
    return folder / NAME


def test_a_run_is_made_again_without_the_endpoint_and_its_key(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    done = call("reproduce", str(asked), "--to", str(tmp_path / "again"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "have the same rows in all tables" in done.stdout
    first, second = all_rows(asked), all_rows(tmp_path / "again")
    assert [name for name in first if not first[name].equals(second[name])] == []
    assert files_with(KEY, tmp_path) == files_with(KEY, asked) == []
    kept = json.loads((asked / "provenance.json").read_text())
    assert kept["run_file"]["explain"]["engine"]["key_variable"] == KEY_VARIABLE
    assert kept["stages"][-1]["name"] == "score"
    again = call("reproduce", str(asked), "--to", str(tmp_path / "again"))
    assert again.returncode == 0
    assert "nothing to compute" in again.stdout


@pytest.mark.slow
def test_a_changed_row_is_told(asked: Path, tmp_path: Path) -> None:
    first = tmp_path / NAME
    shutil.copytree(asked, first)
    done = call("reproduce", str(first), "--to", str(tmp_path / "again"))
    assert done.returncode == 0, done.stdout + done.stderr
    path = next((first / "scores").glob("*.parquet"))
    rows = pq.read_table(path)
    texts = ["changed", *rows["text"].to_pylist()[1:]]
    pq.write_table(
        rows.set_column(rows.schema.get_field_index("text"), rows.schema.field("text"), pa.array(texts)), path
    )
    done = call("reproduce", str(first), "--to", str(tmp_path / "again"))
    assert done.returncode == 1
    assert "differ in 1 tables" in done.stdout
    assert "rows differ, in text; the first (module 'layers.2.mlp'" in done.stdout
    assert "exemplars: all" in done.stdout


@pytest.mark.slow
def test_a_reply_that_is_not_kept_is_not_asked_for(asked: Path, tmp_path: Path) -> None:
    first = tmp_path / NAME
    shutil.copytree(asked, first)
    shutil.rmtree(first / "_replies")
    done = call("reproduce", str(first), "--to", str(tmp_path / "again"))
    assert done.returncode == 2
    assert "nothing is sent when a run is made again" in done.stderr


@pytest.mark.slow
def test_the_reduced_demo_is_made_again(copied: Path) -> None:
    root = copied.parent / "reduced"
    done = call("reproduce", str(root))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (copied.parent / "reduced-again" / "scores").is_dir()
    assert not (copied.parent / "reduced-again" / FOLDER).exists()
    done = call("reproduce", str(root), "--to", str(copied.parent / "other"), "--set", "score.bootstrap=100")
    assert done.returncode == 1
    assert "ci_low" in done.stdout


@pytest.mark.slow
def test_a_run_that_grew_and_has_explanations_by_hand_is_made_again(copied: Path, tmp_path: Path) -> None:
    root = copied.parent / "reduced"
    row = open_run(root).scores.query("status == 'ok'").iloc[0]
    unit = (str(row["module"]), str(row["polarity"]), int(row["index"]))
    scored = [save_by_hand(root, unit, text) for text in ("words by hand", "other words by hand")]
    done = call("run", "--config", str(copied), "--set", "explain.units=6")
    assert done.returncode == 0, done.stdout + done.stderr
    waiting = save_by_hand(root, unit, "saved after the run")
    live = LiveRun(root, REPORTS, dict)
    assert [one["scored"] for one in live.kept({})["explanations"]] == [True, True, False]
    done = call("reproduce", str(root), "--to", str(tmp_path / "again"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one.name for one in read_by_hand(tmp_path / "again")] == [one.name for one in scored]
    assert waiting.text not in set(open_run(tmp_path / "again").scores["text"])
    assert "words by hand" in set(open_run(tmp_path / "again").scores["text"])


def test_what_cannot_be_made_again_is_told(asked: Path, tmp_path: Path) -> None:
    first = tmp_path / NAME
    shutil.copytree(asked, first)
    cases = [(first, "is the run itself"), (tmp_path / "a b", "cannot be called 'a b'")]
    for target, words in cases:
        done = call("reproduce", str(first), "--to", str(target))
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    (first / "provenance.json").unlink()
    done = call("reproduce", str(first))
    assert done.returncode == 2
    assert "does not keep its run file" in done.stderr
