"""What is tried reaches the hands that try it as it was typed, once its size and shape are right."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.execution.stage import Unit
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import Served, serving

UNIT = {"module": "layers.0.mlp", "index": 1}


class Echo:
    """Attempts that say what they were given."""

    closed: list[bool]

    def __init__(self, closed: list[bool]) -> None:
        self.closed = closed

    async def simulate(self, unit: Unit, explanation: str) -> dict[str, Any]:
        if explanation == "fault":
            raise ValueError("a fault of the program")
        return {"unit": list(unit), "explanation": explanation, "thread": threading.current_thread().name}

    async def activations(self, unit: Unit, text: str) -> dict[str, Any]:
        raise UserError(f"no unit {unit[2]}")

    async def aclose(self) -> None:
        self.closed.append(True)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(write_run(tmp_path_factory.mktemp("tried") / "run", 4), lambda: Echo([])) as found:
        yield found


def test_what_is_typed_arrives_in_a_thread_of_its_own(served: Served) -> None:
    text = "words </script> \u202e é 𝔸 \x00"
    found = served.ask("/api/simulate", method="POST", body=UNIT | {"explanation": text, "polarity": "-"}).json
    assert found == {"unit": ["layers.0.mlp", "-", 1], "explanation": text, "thread": "attempts"}


def test_what_was_opened_is_given_back_when_the_server_ends(tmp_path: Path) -> None:
    closed: list[bool] = []
    with serving(write_run(tmp_path / "run", 4), lambda: Echo(closed)) as found:
        assert found.ask("/api/simulate", method="POST", body=UNIT | {"explanation": "a"}).status == 200
        assert closed == []
    assert closed == [True]


def test_mistakes_of_the_user_and_faults_of_the_program_are_told_in_json(served: Served) -> None:
    reply = served.ask("/api/activations", method="POST", body=UNIT | {"text": "a"})
    assert (reply.status, reply.error) == (400, "no unit 1")
    reply = served.ask("/api/simulate", method="POST", body=UNIT | {"explanation": "fault"})
    assert reply.status == 500
    assert "fault of the program" not in reply.error
    assert served.ask("/api/simulate", method="POST", body=UNIT | {"explanation": "fine"}).status == 200


WRONG: dict[str, tuple[Any, str]] = {
    "no JSON": (b"{", "JSON"),
    "a list": ([], "object"),
    "no explanation": (UNIT, "explanation"),
    "an empty one": (UNIT | {"explanation": ""}, "explanation"),
    "a long one": (UNIT | {"explanation": "x" * 2_001}, "explanation"),
    "a number": (UNIT | {"explanation": 5}, "explanation"),
    "an index below 0": ({"module": "a", "index": -1, "explanation": "a"}, "index"),
    "a polarity of its own": (UNIT | {"explanation": "a", "polarity": "x"}, "polarity"),
    "something else": (UNIT | {"explanation": "a", "more": 1}, "more"),
    "bytes that are no text": (b"\xff\xfe", "JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_body_of_another_shape_is_refused(served: Served, name: str) -> None:
    body, word = WRONG[name]
    reply = served.ask("/api/simulate", method="POST", body=body)
    assert reply.status == 400
    assert word in reply.error


def test_a_long_body_is_refused(served: Served) -> None:
    reply = served.ask("/api/simulate", method="POST", body=UNIT | {"explanation": "x" * 100_000})
    assert (reply.status, reply.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_read_as_forms_of_other_pages_cannot_send_it(served: Served, kind: str) -> None:
    assert served.ask("/api/simulate", {"Content-Type": kind}, "POST", UNIT | {"explanation": "a"}).status == 415


def test_without_a_run_file_nothing_is_tried(tmp_path: Path) -> None:
    with serving(write_run(tmp_path / "run", 4)) as found:
        reply = found.ask("/api/simulate", method="POST", body=UNIT | {"explanation": "a"})
        assert (reply.status, "make serve CONFIG=" in reply.error) == (409, True)
        assert found.ask("/api/runs").json["runs"][0]["try"] == []
