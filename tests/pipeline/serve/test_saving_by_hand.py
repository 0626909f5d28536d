"""An explanation that is sent to the server is saved in the run's folder for a unit that the run has, and for no other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.results.run_folder import open_run
from pipeline.storage.by_hand import FOLDER, read_by_hand
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import Reply, Served, serving

UNIT = {"module": "layers.0.mlp", "index": 1}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", 8)


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with serving(root) as found:
        yield found


def save(served: Served, **body: Any) -> Reply:
    return served.ask("/api/explanations", method="POST", body=UNIT | body)


def test_it_is_saved_listed_and_not_saved_twice(served: Served, root: Path) -> None:
    text = "words </script> \u202e é 𝔸 \x00"
    found = save(served, explanation=text)
    assert found.status == 200, found.body
    assert save(served, explanation=f" {text}").json == found.json
    [kept] = read_by_hand(root)
    assert found.json == {
        "name": kept.name, "module": "layers.0.mlp", "index": 1, "polarity": "+", "text": text, "written": kept.written,
        "scored": False,
    }  # fmt: skip
    assert served.ask("/api/explanations").json == {"explanations": [found.json]}


def test_the_list_is_that_of_a_unit_where_one_is_named(served: Served) -> None:
    for index in (0, 1, 2):
        save(served, index=index, explanation=f"words {index}")
    save(served, module="layers.1.mlp", index=1, explanation="of the other module")

    def listed(query: str) -> list[str]:
        return [one["text"] for one in served.ask(f"/api/explanations{query}").json["explanations"]]

    assert listed("") == ["words 0", "words 1", "words 2", "of the other module"]
    assert listed("?module=layers.0.mlp") == ["words 0", "words 1", "words 2"]
    assert listed("?module=layers.0.mlp&index=1") == ["words 1"]
    assert served.ask("/api/explanations?index=x").status == 400


def test_words_that_the_run_has_scored_on_the_unit_count_as_scored(served: Served, root: Path) -> None:
    row = open_run(root).scores.query("module == 'layers.0.mlp' and index == 1").iloc[0]
    assert save(served, explanation=row["text"]).json["scored"] is True
    assert save(served, index=2, explanation=row["text"]).json["scored"] is False


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a unit that was not recorded": ({"index": 99, "explanation": "a"}, "no exemplars of layers.0.mlp/99"),
    "a module that is none": ({"module": "none", "explanation": "a"}, "no exemplars of none/1"),
    "a polarity that was not recorded": ({"polarity": "-", "explanation": "a"}, "no exemplars of layers.0.mlp/1 (-)"),
    "a path in place of a module": ({"module": "../..", "explanation": "a"}, "no exemplars"),
    "blanks": ({"explanation": " \n"}, "blank"),
    "half a character": ({"explanation": "\ud83d"}, "JSON"),
    "a long one": ({"explanation": "x" * 2_001}, "2000"),
    "none": ({}, "explanation"),
}


@pytest.mark.parametrize("name", WRONG)
def test_anything_else_is_refused_and_nothing_is_saved(served: Served, root: Path, name: str) -> None:
    body, words = WRONG[name]
    reply = save(served, **body)
    assert reply.status == 400
    assert words in reply.error
    assert not (root / FOLDER).exists()


def test_other_pages_and_forms_save_nothing(served: Served, root: Path) -> None:
    body = UNIT | {"explanation": "a"}
    foreign = [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
    for headers in foreign:
        assert served.ask("/api/explanations", headers, "POST", body).status == 403
    assert served.ask("/api/explanations", {"Content-Type": "text/plain"}, "POST", body).status == 415
    assert not (root / FOLDER).exists()


def test_beyond_loopback_saving_wants_the_token(root: Path) -> None:
    with serving(root, host="0.0.0.0") as served:
        assert save(served, explanation="a").status == 401
        headers = {"Authorization": f"Bearer {served.opened.token}"}
        assert served.ask("/api/explanations", headers, "POST", UNIT | {"explanation": "a"}).status == 200
    assert [one.text for one in read_by_hand(root)] == ["a"]


def test_a_file_that_is_none_is_told(served: Served, root: Path) -> None:
    save(served, explanation="a")
    (root / FOLDER / "20260101T000000000000-0.json").write_text("{")
    for reply in (served.ask("/api/explanations"), save(served, explanation="b")):
        assert reply.status == 400
        assert "20260101T000000000000-0.json" in reply.error
