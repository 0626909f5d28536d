"""Tables are whole in files, fit a terminal, and pass nothing on that a terminal would obey. Queries read the run alone."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.query import final_report, format_table, run_query
from pipeline.errors import UserError
from stages import REPORTS
from stages.score.score_units import SCORES
from tests.pipeline.report.made_up_run import write_run

LONG = "the words " + ", ".join(f'"word{number}"' for number in range(40))


def test_nothing_is_cut_where_there_is_no_terminal() -> None:
    assert LONG in format_table(["module", "text"], [["layers.4.mlp", LONG]])


def test_long_cells_are_wrapped_to_a_terminal_and_keep_every_word() -> None:
    lines = format_table(["module", "text"], [["layers.4.mlp", LONG]], width=80).split("\n")
    assert max(map(len, lines)) <= 80
    assert len(lines) > 5
    assert "".join(" ".join(lines[2:]).replace("layers.4.mlp", "").split()) == "".join(LONG.split())


def test_numbers_stand_to_the_right_and_null_is_a_dash() -> None:
    lines = format_table(["n", "r", "text"], [[1, 0.12345, "a"], [100, None, "b"]]).split("\n")
    assert [line.split() for line in lines] == [["n", "r", "text"], [lines[1]], ["1", "0.123", "a"], ["100", "-", "b"]]
    assert lines[2].index("1") == lines[3].index("100") + 2


def test_control_characters_and_marks_of_direction_are_written_out() -> None:
    printed = format_table(["text"], [["\x1b[31mred\x1b[0m \u202eabc\x00\n[bold]x[/bold]"]])
    assert "\x1b" not in printed
    assert "\\x1b[31mred\\x1b[0m \\u202eabc\\x00\\n[bold]x[/bold]" in printed


def test_a_table_without_rows_shows_its_columns() -> None:
    assert format_table(["module", "text"], []).split("\n")[0].split() == ["module", "text"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("queried") / "run", 4)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{root}/scores/part-00000.parquet'",
        "COPY (SELECT 1) TO '{root}/new.csv'",
        "ATTACH '{root}/new.db'",
        "EXPORT DATABASE '{root}/new'",
        "SELECT * FROM glob('{root}/*')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/passwd'",
        "INSTALL httpfs",
        "SET threads = 1",
        "CREATE TABLE new AS SELECT 1",
        "SELECT 1; SELECT 2",
    ],
)
def test_sql_reads_the_tables_of_the_run_and_nothing_else(root: Path, sql: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(UserError, match="Tables of this run: corpus, "):
        run_query(root, sql.format(root=root), "table", [])
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_unsafe_sql_may_write_files(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_query(root, f"SELECT count(*) AS n FROM glob('{root}/scores/*')", "json", [], unsafe=True)
    assert capsys.readouterr().out == '{"n":1}\n'
    run_query(root, f"COPY scores TO '{tmp_path}/scores.csv'", "table", [], unsafe=True)
    assert (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize(
    "sql", ["DESCRIBE scores", "SUMMARIZE units", "FROM explanations", "WITH a AS (SELECT 1 AS b) FROM a"]
)
def test_every_way_to_write_a_select_is_allowed(root: Path, capsys: pytest.CaptureFixture[str], sql: str) -> None:
    run_query(root, sql, "csv", [])
    assert len(capsys.readouterr().out.splitlines()) > 1


def test_reports_and_ready_made_queries_order_equal_scores_the_same_way_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", 6)
    file = run / "scores" / "part-00000.parquet"
    rows = pq.read_table(file).to_pandas().assign(correlation=0.5, index=0)
    rows = pd.concat([rows, *(rows.assign(**{name: "other"}) for name in ("explainer", "simulator"))])
    rows["text"] = [f"text {number}" for number in range(len(rows))]
    rows["candidate"] = range(len(rows))
    seen = set()
    for seed in range(4):
        drawn = rows.sample(frac=1, random_state=seed)
        pq.write_table(pa.Table.from_pandas(drawn, SCORES.schema, preserve_index=False), file)
        for words in ("best", "worst"):
            run_query(run, words, "table", REPORTS)
        seen.add((final_report(run, 0, REPORTS), capsys.readouterr().out))
    assert len(seen) == 1
