"""What units answer to synthetic texts, and what becomes of those that do not answer."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pipeline.execution.stage import Context
from stages.sasc.synthesize import SYNTHESIZE, respond
from tests.stages.sasc.small_run import run_file, write_place

SHORT, LONG = "a short text", "a text that is longer than all the others are"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    place = write_place(tmp_path)
    monkeypatch.chdir(place)
    functions = """
def picky(texts):
    if any(len(text) > 30 for text in texts):
        raise LookupError("too long")
    return [[len(text), float("nan") if "short" in text else 1.0] for text in texts]
"""
    (place / "picky_functions.py").write_text(functions)
    config = run_file(place, "picky", ["black_box:near", "layers.0.mlp"])
    box = config.subject.black_boxes["near"].model_copy(update={"call": "picky_functions:picky", "arguments": None})
    subject = config.subject.model_copy(update={"black_boxes": {"picky": box}})
    return Context(config.model_copy(update={"subject": subject}), SYNTHESIZE)


def row(index: int, text: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "status": "ok", "error": None}


def test_a_unit_fails_on_its_own_texts_alone(context: Context) -> None:
    rows = [row(0, SHORT), row(1, "another text"), row(1, LONG), row(0, "a text"), row(0, None)]
    asyncio.run(respond(rows, "black_box:picky", context))
    assert [one.get("response") for one in rows] == [len(SHORT), None, None, len("a text"), None]
    assert [one["status"] for one in rows] == ["ok", "failed", "failed", "ok", "ok"]
    assert all("raised LookupError: too long" in one["error"] for one in rows[1:3])


def test_an_answer_that_is_no_number_fails_its_text_alone(context: Context) -> None:
    rows = [row(1, SHORT), row(1, "another text")]
    asyncio.run(respond(rows, "black_box:picky", context))
    assert rows[0]["error"] == "the response is nan; give a number for every text"
    assert (rows[1]["response"], rows[1]["status"]) == (1.0, "ok")


def test_units_of_the_model_answer_all_texts_of_a_shard(context: Context) -> None:
    rows = [row(0, SHORT), row(5, SHORT), row(0, LONG), row(0, SHORT)]
    asyncio.run(respond(rows, "layers.0.mlp", context))
    assert rows[0]["response"] == rows[3]["response"] != rows[1]["response"]
    assert {one["status"] for one in rows} == {"ok"}
