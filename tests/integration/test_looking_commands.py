"""The commands that look at a finished run: a unit on a real terminal and in a file, ready-made queries, two runs compared."""

import io
import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import open_run
from pipeline.storage.tables import Tables
from stages.sasc.sasc_tables import NULLS, SASC_SCORES, THEMES
from tests.integration.reduced import call, command
from tests.pipeline.report.made_up_run import write_run

UNIT = ("layers.9.mlp", "7")


def on_a_terminal(*arguments: str, columns: int = 80, **environment: str) -> str:
    """What a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    outer = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    outer |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(columns)} | environment
    with subprocess.Popen(command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=outer) as running:
        os.close(theirs)
        written = b""
        while part := _read(ours):
            written += part
    os.close(ours)
    assert running.returncode == 0, written.decode()
    return written.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_a_unit_is_coloured_on_a_terminal_unless_no_color_is_set(root: Path) -> None:
    coloured = on_a_terminal("show", *UNIT, "--run", str(root), "--exemplars", "3")
    plain = on_a_terminal("show", *UNIT, "--run", str(root), "--exemplars", "3", NO_COLOR="1")
    assert "48;2;" in coloured
    assert "48;" not in plain
    without = [re.sub("\x1b\\[[0-9;]*m", "", text) for text in (coloured, plain)]
    assert without[0] == without[1]
    assert len(re.findall("^true", without[0], flags=re.M)) == 3
    exemplars = without[0][without[0].index("true") :].splitlines()
    assert max(map(len, exemplars)) <= 80


@pytest.mark.parametrize("style", ["csv", "json", "table"])
def test_rows_are_shown_on_a_terminal_and_not_obeyed_and_go_into_a_file_as_they_are(tmp_path: Path, style: str) -> None:
    evil = "\x1b]0;title\x07 \x9b31m \u202e"
    run = write_run(tmp_path / "run", 2, texts=[evil])
    words = ["query", f'SELECT text AS "{evil}" FROM scores', "--format", style, "--run", str(run)]
    assert not set("\x1b\x07\x9b\u202e") & set(on_a_terminal(*words))
    if style == "csv":
        assert call(*words).stdout.count(evil) == 3


def test_a_unit_goes_without_any_escape_sequence_into_a_file(root: Path) -> None:
    row = open_run(root).scores.dropna(subset="correlation").nlargest(1, "correlation").iloc[0]
    done = call("show", row["module"], str(row["index"]), "--run", str(root), "--exemplars", "2")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert row["text"] in done.stdout
    assert f"word: correlation {row['correlation']:.2f} (" in done.stdout
    for word in ("correlation_shuffled", "correlation_lookup", "top tokens: '", "density"):
        assert word in done.stdout
    places = [line.index("10") for line in done.stdout.splitlines() if line.startswith("true") and "10" in line]
    assert max(places) - min(places) <= 1, (
        "the unit's largest activation begins in the middle, but for the space of its token"
    )
    assert len(re.findall("^simulated", done.stdout, flags=re.M)) == 2


def test_a_unit_that_is_not_there_ends_with_a_message(root: Path) -> None:
    for arguments, word in (
        (["layers.9.mlp", "5000"], "0 to 1535"),
        (["layers.3.mlp", "0"], "layers.2.mlp, layers.9.mlp"),
        ([*UNIT, "--polarity", "up"], "'up'"),
        ([*UNIT, "--exemplars", "-1"], "--exemplars -1"),
    ):
        done = call("show", *arguments, "--run", str(root))
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def rows_of(root: Path, *words: str) -> list[dict[str, object]]:
    done = call("query", *words, "--run", str(root), "--format", "json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_best_and_worst_are_the_two_ends_of_the_scores(root: Path) -> None:
    scores = open_run(root).scores["correlation"].dropna()
    assert [row["correlation"] for row in rows_of(root, "best")] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-6
    )
    assert [row["correlation"] for row in rows_of(root, "worst")] == pytest.approx(sorted(scores), abs=1e-6)
    assert rows_of(root) == rows_of(root, "best") == rows_of(root, "")


def test_sql_is_queried_as_before_in_one_word_or_in_many(root: Path) -> None:
    assert rows_of(root, "SELECT count(*) AS n FROM units") == [{"n": 3072}]
    assert rows_of(root, "SELECT", "count(*)", "AS", "n", "FROM", "units") == [{"n": 3072}]


def test_search_takes_the_rest_as_words(copied: Path) -> None:
    root = copied.parent / "reduced"
    text = str(open_run(root).scores.query("status == 'ok'")["text"].iloc[0])
    found = rows_of(root, "search", *text.split())
    assert found[0]["text"] == text
    done = call("query", "search", "--run", str(root))
    assert done.returncode == 2
    assert "give some words" in done.stderr


def test_failures_say_how_many_units_have_no_result_and_why(copied: Path) -> None:
    root = copied.parent / "reduced"
    [file, *_] = open_run(root).files("scores")
    table = pq.read_table(file)
    rows = table.to_pandas()
    rows.loc[rows["status"] == "ok", ["status", "error"]] = ["failed", "the server was gone"]
    pq.write_table(pa.Table.from_pandas(rows, table.schema, preserve_index=False), file)
    failed = rows[rows["status"] == "failed"]
    [found] = [row for row in rows_of(root, "failures") if row["status"] == "failed"]
    assert (found["table"], found["error"]) == ("scores", "the server was gone")
    assert found["rows"] == found["units"] == len(failed) > 0
    assert found["example"] in {
        f"{row.module} {row.index_} +" for row in failed.rename(columns={"index": "index_"}).itertuples()
    }


def test_a_query_that_is_neither_sql_nor_ready_made_names_those_that_are(root: Path) -> None:
    done = call("query", "bets", "--run", str(root))
    assert done.returncode == 2
    assert "best, worst, search, compare, failures" in done.stderr
    done = call("query", "worst", "5", "--run", str(root))
    assert done.returncode == 2
    assert "takes nothing after its name" in done.stderr


def test_null_units_are_no_results(tmp_path: Path) -> None:
    """Random units stand in the tables of SASC only to compare others with them."""
    row = {"index": 0, "polarity": "+", "explainer": "embedded", "candidate": 0, "status": "ok"}
    for table, more in ((THEMES, {}), (SASC_SCORES, {"score": 1.0, "ci_low": 0.5, "ci_high": 1.5})):
        found = [row | more | {"module": module, "text": f"words of {module}"} for module in (NULLS, "black_box:f")]
        file = Tables(tmp_path).file(table, "part-00000")
        file.parent.mkdir()
        pq.write_table(table.of_rows(found), file)
    run = open_run(tmp_path)
    assert run.search("words", by_meaning=False)["module"].tolist() == ["black_box:f"]
    assert run.compare(run).query("by == 'module'")["group"].tolist() == ["black_box:f"]
    assert [found["module"] for found in rows_of(tmp_path, "worst")] == ["black_box:f"]
    assert run.unit("black_box:f", 0).shown_explanations()[0].scores == ["score 1.00 (0.50 to 1.50)"]


def test_compare_prints_the_two_runs_and_the_meaning_of_a_difference(root: Path) -> None:
    done = call("compare", str(root), str(root))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^correlation +all +all +\d+ .* 0\.000 +0\.000 +0\.000 +1\.000$", done.stdout, flags=re.M)
    assert f"A  {root}" in done.stdout
    csv = call("compare", str(root), str(root), "--format", "csv").stdout
    rows = pd.read_csv(io.StringIO(csv))
    assert list(rows.columns) == [
        "score",
        "by",
        "group",
        "units",
        "A",
        "B",
        "difference",
        "ci_low",
        "ci_high",
        "agreement",
    ]
    three = call("compare", str(root), str(root), str(root), "--format", "csv").stdout.splitlines()
    assert [line.rsplit(",", 1)[1] for line in three] == ["run", *["B"] * (len(three) // 2), *["C"] * (len(three) // 2)]
    assert (
        call("query", "compare", str(root), "--run", str(root), "--format", "csv").stdout.splitlines()[1:]
        == csv.splitlines()[1:]
    )
    assert "needs the folder" in call("query", "compare", "--run", str(root)).stderr
    done = call("compare", str(root), str(root / "none"))
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
