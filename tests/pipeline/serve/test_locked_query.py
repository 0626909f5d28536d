"""SQL from a server's users reads the tables of the run, and nothing else of the machine."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.results.run_folder import open_run
from pipeline.serve.locked_query import PROGRAM, run_locked
from pipeline.serve.query_process import answer
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import Served

REFUSED = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "WITH a AS (SELECT * FROM read_blob('/etc/passwd')) SELECT * FROM a",
    "SELECT * FROM scores WHERE text IN (SELECT content FROM Read_Text('/etc/passwd'))",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM '{file}'",
    "DESCRIBE '/etc/passwd'",
    "SUMMARIZE '{file}'",
    "DESCRIBE SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM system.main.read_text('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/')",
    "SELECT * FROM 'https://example.org/a.parquet'",
    "SELECT * FROM 's3://bucket/a.parquet'",
    "COPY scores TO '{folder}/stolen.csv'",
    "COPY (SELECT 1) TO '.tmp/stolen.csv'",
    "EXPORT DATABASE '{folder}/stolen'",
    "ATTACH '{folder}/stolen.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA version",
    "PRAGMA database_list",
    "SET threads = 8",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CALL pragma_version()",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_path = '{folder}/stolen')",
    "SELECT * FROM arrow_scan(1, 1, 1)",
    "SELECT getenv('HOME')",
    "SELECT * FROM hidden",
    "SELECT * FROM tables",
    "CREATE TABLE stolen AS SELECT 1",
    "DROP VIEW scores",
    "DELETE FROM scores",
    "SELECT 1; COPY scores TO '{folder}/stolen.csv'",
    "SELECT 1; SELECT 2",
    "SELEC 1",
    "",
    "-- nothing",
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The files of a run, as they are handed to the process of a query."""
    run = open_run(write_run(tmp_path_factory.mktemp("tables") / "run", 4))
    return {name: [str(path) for path in run.files(name)] for name in run.tables}


@pytest.mark.parametrize("sql", REFUSED)
def test_whatever_is_no_select_from_the_tables_is_refused(
    tables: dict[str, list[str]], tmp_path: Path, sql: str
) -> None:
    hidden = pa.table({"a": ["a variable of the program"]})
    found = answer(tables, sql.format(file=tables["scores"][0], folder=tmp_path), 10)
    assert set(found) == {"error"}
    assert found["error"]
    assert list(tmp_path.iterdir()) == []
    assert len(hidden) == 1


@pytest.mark.parametrize("sql", ["SELECT * FROM read_csv('/etc/passwd')", "PRAGMA version", " "])
def test_the_server_says_why_a_query_is_refused(served: Served, sql: str) -> None:
    reply = served.query(sql)
    assert (reply.status, set(reply.json)) == (400, {"error"})


def test_the_process_of_a_query_cannot_write_files(tmp_path: Path) -> None:
    """Should DuckDB let something through."""
    writes = f"""
import sys; sys.path.insert(0, {str(PROGRAM.parent)!r})
import query_process
query_process.limit_process(10)
with open({str(tmp_path / "a")!r}, "w") as file:
    file.write("x")
"""
    done = subprocess.run([sys.executable, "-c", writes], capture_output=True, text=True)
    assert done.returncode != 0
    assert "File too large" in done.stderr


def test_a_select_over_the_tables_gives_columns_types_and_rows(served: Served) -> None:
    sql = """WITH best AS (SELECT module, avg(correlation) AS r FROM scores JOIN explanations USING (module, "index") GROUP BY 1)
             SELECT module, r, (SELECT count(*) FROM exemplars), [1.5, NULL], {'a': 1}, DATE '2020-01-02', 'NaN'::DOUBLE
             FROM best ORDER BY module LIMIT 1"""
    found = served.query(sql).json
    assert [column["name"] for column in found["columns"]][:2] == ["module", "r"]
    assert [column["type"] for column in found["columns"]][:3] == ["VARCHAR", "DOUBLE", "BIGINT"]
    module, r, count, *rest = found["rows"][0]
    assert (module, count) == ("layers.0.mlp", 40 * 85)
    assert -1 <= r <= 1
    assert rest == [[1.5, None], {"a": 1}, "2020-01-02", None]
    assert found["truncated"] is False


@pytest.mark.parametrize(
    "sql", ["DESCRIBE scores", "SHOW TABLES", "FROM scores LIMIT 3", "VALUES (1)", "SELECT unnest([1, 2])"]
)
def test_short_forms_of_select_work(served: Served, sql: str) -> None:
    assert served.query(sql).json["rows"]


def test_rows_are_limited_and_the_answer_says_so(served: Served) -> None:
    assert len(served.query("SELECT * FROM range(1000000)").json["rows"]) == 1_000
    found = served.query("SELECT * FROM range(7)", "&limit=5").json
    assert (len(found["rows"]), found["truncated"]) == (5, True)
    assert served.query("SELECT * FROM range(5)", "&limit=5").json["truncated"] is False
    for limit in ("-1", "1000000000", "9" * 5000, "many", ""):
        assert "limit" in served.query("SELECT 1", f"&limit={limit}").error


def test_an_answer_is_limited_in_bytes(served: Served) -> None:
    found = served.query("SELECT repeat('x', 1000000) FROM range(100)").json
    assert found["truncated"] is True
    assert len(found["rows"]) < 20


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(100000000000)",
        "SELECT sleep_ms(60000)",
        "SELECT list_sum(range(200000000)), list_sum(range(199999999)), list_sum(range(199999998))",
    ],
)
def test_a_query_ends_with_its_time_even_where_duckdb_cannot_be_interrupted(tmp_path: Path, sql: str) -> None:
    run = open_run(write_run(tmp_path / "run", 4))
    with pytest.raises(UserError, match=r"longer than 1 s|too much memory|Out of Memory|out of memory"):
        run_locked(run, sql, seconds=1)


def test_a_query_does_not_take_all_memory(served: Served) -> None:
    reply = served.query("SELECT list(repeat('x', 1000000) || range) FROM range(100000)")
    assert reply.status == 400
    assert "emory" in reply.error


def test_an_error_names_the_tables(served: Served) -> None:
    assert "Tables of this run: corpus, details, exemplars" in served.query("SELECT * FROM nothing").error
