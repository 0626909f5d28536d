"""A server shows the runs beside the one that it was started for, or those that were named, each at an address of its own."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.commands.serve import open_server
from pipeline.errors import UserError
from pipeline.execution.stage import Unit
from pipeline.serve import served_runs
from pipeline.serve.attempts import AttemptThread
from pipeline.storage.by_hand import read_by_hand
from stages import REPORTS
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import Served, serving

LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs in a folder with other things."""
    folder = tmp_path_factory.mktemp("outputs")
    write_run(folder / "middle", 8, texts=["of the middle {}"])
    write_run(folder / "a first", 4, texts=["of a first {}"])
    write_run(folder / "zz%é", 12, texts=["of the last {}"])
    (folder / "empty").mkdir()
    (folder / "_kept").mkdir()
    (folder / "README.md").write_text("no run")
    shutil.copytree(folder / "middle", folder / ".middle.tmp-host-1")
    return folder


@pytest.fixture(scope="module")
def served(outputs: Path) -> Iterator[Served]:
    with serving(outputs / "middle") as found:
        yield found


def names(served: Served) -> list[str]:
    return [run["name"] for run in served.ask("/api/runs").json["runs"]]


def test_the_runs_beside_the_first_are_listed_after_it(served: Served) -> None:
    runs = served.ask("/api/runs").json["runs"]
    assert [(run["name"], run["units"]) for run in runs] == [("middle", 8), ("a first", 4), ("zz%é", 12)]
    assert [run["address"] for run in runs] == ["/run/middle/", "/run/a%20first/", "/run/zz%25%C3%A9/"]
    assert served.ask("/run/middle/api/runs").json["runs"] == runs


def test_every_address_of_the_first_run_stays_and_each_run_has_the_same_below_its_own(served: Served) -> None:
    for path in ("/", "/index.html", "/main.js", "/runs.js", "/libraries/slick.grid.js", "/data/list.js", "/api/units"):
        assert served.ask(path).status == 200
        assert served.ask(f"/run/middle{path}").body == served.ask(path).body, path
    assert (
        served.ask("/api/run").json == served.ask("/run/middle/api/run").json == served.ask("/api/runs").json["runs"][0]
    )
    for run in served.ask("/api/runs").json["runs"]:
        at, name = run["address"], run["name"]
        assert served.ask(f"{at}api/run").json == run
        assert served.ask(f"{at}api/units").json["total"] == run["units"]
        words = {"middle": "of the middle", "a first": "of a first"}.get(name, "of the last")
        assert words in served.ask(f"{at}data/list.js").body.decode()
        unit = served.ask(f"{at}api/unit/layers.0.mlp/1").json
        assert unit["tables"]["scores"][0]["text"].startswith(words)
        assert served.ask(f"{at}api/query?sql={quote('SELECT count(*) FROM scores')}").json["rows"] == [[run["units"]]]
        script = served.ask(f"{at}data/runs.js").body.decode()
        handed = json.loads(script.removeprefix("NG.put(").removesuffix(");\n").partition(",")[2])
        assert handed == {"name": name, "runs": ["middle", "a first", "zz%é"]}


MISSING = [
    "/run/none/",
    "/run/none/api/units",
    "/run/empty/data/list.js",
    "/run/.middle.tmp-host-1/api/run",
    "/run/../api/run",
]


@pytest.mark.parametrize("path", [*MISSING[1:], "/run/%2e%2e/api/run", f"/run/{'x' * 3000}/api/run"])
def test_another_name_is_no_run(served: Served, path: str) -> None:
    reply = served.ask(path)
    assert reply.status == 404
    assert len(reply.error) < 300


def test_the_page_of_a_run_has_a_slash_at_its_end(served: Served) -> None:
    reply = served.ask("/run/middle")
    assert reply.status == 307
    assert reply.headers["location"].endswith("/run/middle/")


def test_a_link_elsewhere_may_lead_to_the_page_of_a_run_and_to_nothing_else_of_it(served: Served) -> None:
    assert served.ask("/run/a%20first/", LINK).status == 200
    for path in ("/run/middle/api/units", "/run/middle/data/list.js", "/run/middle/x/index.html"):
        assert served.ask(path, LINK).status == 403


def test_an_explanation_is_saved_in_the_run_that_was_asked(served: Served, outputs: Path) -> None:
    body = {"module": "layers.0.mlp", "index": 1, "explanation": "words"}
    assert served.ask("/run/a%20first/api/explanations", method="POST", body=body).status == 200
    assert [len(read_by_hand(outputs / name)) for name in ("middle", "a first")] == [0, 1]


def test_runs_come_and_go_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_runs, "LOOK_AGAIN", 0.0)
    with serving(write_run(tmp_path / "b", 4)) as served:
        assert names(served) == ["b"]
        write_run(tmp_path / "a", 4)
        assert names(served) == ["b", "a"]
        assert served.ask("/run/a/api/units").json["total"] == 4
        shutil.rmtree(tmp_path / "a")
        assert names(served) == ["b"]
        assert served.ask("/run/a/api/units").status == 404


def test_a_damaged_run_beside_the_first_hides_no_other(tmp_path: Path) -> None:
    for name in "abc":
        write_run(tmp_path / name, 4)
    for path in (tmp_path / "b" / "scores").glob("*.parquet"):
        path.write_bytes(b"PAR1 no more")
    with serving(tmp_path / "c") as served:
        assert names(served) == ["c", "a"]
        assert served.ask("/run/a/api/units").status == 200
        assert served.ask("/run/b/api/units").status >= 400


def test_several_named_runs_are_served_and_no_others(outputs: Path, tmp_path: Path) -> None:
    with serving([outputs / "zz%é", write_run(tmp_path / "far", 4)]) as served:
        assert names(served) == ["zz%é", "far"]
        assert served.ask("/api/run").json["name"] == "zz%é"
        assert served.ask("/run/middle/api/run").status == 404


def test_two_runs_of_one_name_are_refused(outputs: Path, tmp_path: Path) -> None:
    roots = [outputs / "middle", write_run(tmp_path / "middle", 4)]
    with pytest.raises(UserError, match="two of the runs are called middle"):
        open_server(roots, REPORTS, lambda _: None, "127.0.0.1", 0)


class Named:
    """Attempts that say which run they are of, and when they are opened and given back."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events
        events.append(f"open {name}")

    async def simulate(self, unit: Unit, explanation: str) -> dict[str, Any]:
        return {"run": self.name}

    async def activations(self, unit: Unit, text: str) -> dict[str, Any]:
        return {"run": self.name}

    async def aclose(self) -> None:
        self.events.append(f"close {self.name}")


def test_what_one_run_needs_is_given_back_before_another_is_tried() -> None:
    events: list[str] = []
    a, b = partial(Named, "a", events), partial(Named, "b", events)

    async def tried() -> list[Any]:
        thread, unit = AttemptThread(), ("m", "+", 0)
        found = [await thread.simulate(one, unit, "") for one in (a, a)]
        found += [await thread.activations(one, unit, "") for one in (b, a)]
        await thread.aclose()
        return [one["run"] for one in found]

    assert asyncio.run(tried()) == ["a", "a", "b", "a"]
    assert events == ["open a", "close a", "open b", "close b", "open a", "close a"]


def test_each_run_is_tried_with_its_own_run_file(outputs: Path) -> None:
    def trials(root: Path) -> partial[Named] | None:
        return None if root.name == "middle" else partial(Named, root.name, [])

    runs = served_runs.ServedRuns([outputs / "middle"], REPORTS, trials)
    assert runs.opener() is None
    assert runs.opener("a first") is runs.opener("a first") is not None
    assert [run["try"] for run in runs.describe()] == [[], ["simulate", "activations"], ["simulate", "activations"]]
