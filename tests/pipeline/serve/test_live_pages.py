"""A server's pages and API say what the tables say, and go on with them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.report.pages import write_pages
from pipeline.results.run_folder import open_run
from pipeline.serve import live_run
from pipeline.serve.openapi import describe_api
from pipeline.serve.routes import api_routes
from stages import REPORTS
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.report.test_pages import column, data
from tests.pipeline.serve.serving import Served, serving


def handed(served: Served, name: str) -> Any:
    """What the script data/NAME.js hands to the page."""
    reply = served.ask(f"/data/{quote(name)}.js")
    assert reply.status == 200, reply.body
    assert b"<" not in reply.body
    assert reply.headers["content-type"].startswith("text/javascript")
    found = re.fullmatch(r'NG\.(put|refuse)\("([^"]+)",(.*)\);\n', reply.body.decode("ascii"), re.DOTALL)
    assert found
    assert found[2] == name
    return json.loads(found[3]) if found[1] == "put" else {"refused": json.loads(found[3])}


def test_the_data_of_the_pages_is_that_of_a_report(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 40)
    page = write_pages(open_run(root), REPORTS, lambda done, total: None)
    with serving(root) as served:
        assert handed(served, "list") == data(page, "list")
        facts, written = handed(served, "run"), data(page, "run")
        assert set(facts.pop("served")) == {"simulate", "activations", "state"}
        assert "served" not in written
        assert facts == written | {"sequences": 200, "strongest": 0}
        file = data(page, "units/1")
        parts = [handed(served, f"units/{file['module']}/{index}") for index in file["indices"]]
        for name in ("scores", "explanations", "exemplars"):
            for key in ("index", "polarity"):
                found = [value for part in parts for value in column(part["tables"][name], key)]
                assert found == column(file["tables"][name], key)
        sequences = handed(served, "corpus/0")
        assert len(sequences) == 32
        for number, sequence in data(page, "corpus/0").items():
            assert sequences[number] == sequence


def test_only_the_start_page_differs_from_the_one_on_disk(served: Served, tmp_path: Path) -> None:
    page = write_pages(open_run(write_run(tmp_path / "run", 4)), REPORTS, lambda done, total: None)
    text = served.ask("/").body.decode()
    assert "connect-src 'self'" in text
    for name in ("try_it.js", "runs.js"):
        assert name in text
        assert served.ask(f"/{name}").status == 200
    written = page.read_text(encoding="utf-8")
    assert "connect-src 'none'" in written
    for file in page.parent.rglob("*.js"):
        if "libraries" not in file.parts:
            assert not re.search(r"\bfetch\(|api/", file.read_text(encoding="utf-8")), file
    for name in ("main.js", "style.css", "libraries/slick.grid.js"):
        assert served.ask(f"/{name}").body == (page.parent / name).read_bytes()


MISSING = [
    "/data/none.js",
    "/data/list",
    "/data/units/1.js",
    "/data/units/layers.0.mlp/-1.js",
    "/data/units/layers.0.mlp/99.js",
    "/data/corpus/x.js",
    "/data/../pages.py",
    "/..%2fpages.py",
    f"/data/corpus/{'9' * 5000}.js",
    f"/data/units/layers.0.mlp/{'9' * 5000}.js",
    f"/api/unit/layers.0.mlp/{'9' * 5000}",
    "/api/unit/layers.0.mlp/999999999",
    "/api/unit/layers.0.mlp/%D9%A3",
    "/libraries/",
    "/api/none",
    "/api/unit/layers.0.mlp/99",
    "/api/unit/none/0",
]


@pytest.mark.parametrize("path", MISSING)
def test_what_is_not_there_is_told_in_json(served: Served, path: str) -> None:
    reply = served.ask(path)
    assert reply.status == 404
    assert reply.error


def test_another_method_is_refused(served: Served) -> None:
    assert served.ask("/api/runs", method="POST", body={}).status == 405
    assert served.ask("/", method="DELETE").status == 405


def test_pages_go_on_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_run, "LOOK_AGAIN", 0.0)
    root, more = tmp_path / "run", write_run(tmp_path / "more", 8)
    root.mkdir()
    with serving(root) as served:
        assert "no unit of the run is scored yet" in handed(served, "run")["refused"]
        assert "no unit of the run is scored yet" in served.ask("/api/units").error
        runs = served.ask("/api/runs").json["runs"][0]
        assert (runs["units"], runs["tables"]) == (0, {})
        write_run(root, 4)
        assert handed(served, "list")["rows"] == 4
        assert handed(served, "run")["units"] == 4
        before = served.ask("/api/runs").json["runs"][0]
        assert before["tables"]["scores"] == 4
        assert served.ask("/api/runs").json["runs"][0] == before
        for table in ("scores", "explanations", "exemplars", "units", "simulations"):
            shutil.copy(more / table / "part-00000.parquet", root / table / "part-00000.parquet")
        after = served.ask("/api/runs").json["runs"][0]
        assert after["state"] != before["state"]
        assert handed(served, "list")["rows"] == after["units"] == 8
        assert handed(served, "units/layers.1.mlp/3")["indices"] == [3]
        assert served.query("SELECT count(*) FROM scores").json["rows"] == [[8]]


def test_units_are_matched_sorted_and_paged(served: Served) -> None:
    whole = served.ask("/api/units?limit=1000").json
    assert whole["total"] == len(whole["rows"]) == 40
    best = served.ask("/api/units?sort=-score&limit=3").json["rows"]
    assert [row["score"] for row in best] == sorted((row["score"] for row in whole["rows"]), reverse=True)[:3]
    assert served.ask("/api/units?limit=2&offset=38").json["rows"] == whole["rows"][38:]
    module = served.ask("/api/units?module=layers.3.mlp").json
    assert {row["module"] for row in module["rows"]} == {"layers.3.mlp"}
    assert module["total"] == 4
    assert served.ask("/api/units?q=%3CB%3E").json["total"] == 20
    assert served.ask("/api/units?q=nowhere").json == {"total": 0, "rows": []}
    assert "sort = 'x'; allowed: module" in served.ask("/api/units?sort=x").error
    assert "limit = '5000'" in served.ask("/api/units?limit=5000").error
    assert "offset = '-1'" in served.ask("/api/units?offset=-1").error


def test_a_unit_has_its_rows_as_the_tables_have_them(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 8)
    with serving(root) as served:
        found = served.ask("/api/unit/layers.1.mlp/2").json
    run = open_run(root)
    score = run.scores.query("module == 'layers.1.mlp' and index == 2").iloc[0]
    assert found["tables"]["scores"][0]["correlation"] == score["correlation"]
    table = run.table("exemplars").query("module == 'layers.1.mlp' and index == 2 and split == 'report'")
    own = [row for row in found["tables"]["exemplars"] if row["split"] == "report"]
    assert len(own) == len(table)
    for row, true in zip(own, table.to_dict("records"), strict=True):
        assert row["seq_id"] == true["seq_id"]
        assert [value is None for value in row["activations"]] == [value != value for value in true["activations"]]
        assert row["activations"][1:] == [float(value) for value in true["activations"][1:]]


def test_every_route_of_the_api_is_described(served: Served) -> None:
    described = served.ask("/api/openapi.json").json
    assert described == json.loads(json.dumps(describe_api(["made-up"])))
    routes = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in api_routes(None, None)  # type: ignore[arg-type]
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert routes == {(path, method) for path, methods in described["paths"].items() for method in methods}
    for path, methods in described["paths"].items():
        for one in methods.values():
            named = {given["name"] for given in one.get("parameters", []) if given["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert {"200", "400", "401", "403"} <= one["responses"].keys()


ANSWERS = {
    "/api/runs": "/api/runs",
    "/api/run": "/api/run",
    "/api/units": "/api/units?limit=2",
    "/api/unit/{module}/{index}": "/api/unit/layers.0.mlp/0",
    "/api/query": "/api/query?sql=SELECT+1",
    "/api/explanations": "/api/explanations",
}


@pytest.mark.parametrize("path", ANSWERS)
def test_answers_have_the_described_keys(served: Served, path: str) -> None:
    def check(schema: dict[str, Any], value: Any) -> None:
        if "properties" in schema:
            assert set(value) == set(schema["properties"])
            for name, one in schema["properties"].items():
                check(one, value[name])
        if schema.get("type") == "array":
            assert isinstance(value, list)
            for one in value:
                check(schema.get("items", {}), one)

    answer = describe_api(["run"])["paths"][path]["get"]["responses"]["200"]
    check(answer["content"]["application/json"]["schema"], served.ask(ANSWERS[path]).json)
