"""Explain and simulate over llama.cpp's server with the demo's model, with log-probabilities and with a JSON schema."""

import json
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, files_with, rows, sections, write_run
from tests.integration.llama_server import CONTEXT, MODEL, LlamaServer
from tests.integration.reduced import all_rows, call

UNITS = {"logprobs": [5], "schema": [5, 70]}
METHODS = {"logprobs": ("token_activation", "one_at_a_time"), "schema": ("max_activation", "json")}
BODY = "body = { repeat_penalty = 1.1 }"
"""A field of llama.cpp's own; without it so small a model lists tokens until the limit of the reply cuts it."""


@dataclass(frozen=True)
class Finished:
    """A run to its end, and what the server counted meanwhile."""

    kind: str
    file: Path
    doctor: "CompletedProcess[str]"
    run: "CompletedProcess[str]"
    read: int
    """Tokens of prompts."""
    written: int


@pytest.fixture(scope="module", params=list(METHODS))
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, recorded: Path, llama: LlamaServer
) -> Finished:
    """A run whose engines were probed before it started."""
    kind = request.param
    explainer, simulator = METHODS[kind]
    more = BODY if kind == "schema" else ""
    text = sections(llama.base_url, MODEL, explainer, simulator, UNITS[kind], candidates=1, controls=1, pack=2, more=more)
    file = write_run(tmp_path_factory.mktemp(kind), recorded, text)
    doctor = call("doctor", "--config", str(file), **{KEY_VARIABLE: KEY})
    before = llama.tokens()
    run = call("run", "--config", str(file), **{KEY_VARIABLE: KEY})
    read, written = np.subtract(llama.tokens(), before).tolist()
    return Finished(kind, file, doctor, run, read, written)


def test_the_server_obeys_schemas_and_gives_logprobs(llama: LlamaServer) -> None:
    """Else the other tests would test less than they say."""
    schema = {"type": "object", "properties": {"a": {"enum": ["zyx"]}}, "required": ["a"]}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is a cat?"}],
        "max_tokens": 64,
        "logprobs": True,
        "top_logprobs": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}},
    }
    choice = llama.ask("/v1/chat/completions", body)["choices"][0]
    assert json.loads(choice["message"]["content"]) == {"a": "zyx"}
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 20


def test_the_doctor_finds_what_the_server_does(finished: Finished) -> None:
    assert finished.doctor.returncode == 0, finished.doctor.stderr
    printed = finished.doctor.stdout
    assert MODEL in printed
    assert f"{CONTEXT:,}" in printed or str(CONTEXT) in printed


def test_every_unit_has_a_score_or_a_named_failure(finished: Finished) -> None:
    assert "Traceback" not in finished.run.stderr
    explained = rows(finished.file, "explanations")
    assert set(explained["index"]) == set(UNITS[finished.kind])
    going_on = set(explained.query("status == 'ok'")["index"])
    failed = 0
    for table in ("explanations", "simulations", "scores"):
        found = rows(finished.file, table)
        assert set(found["index"]) >= going_on, table
        named = found["error"].str.len() > 0
        assert (named | (found["status"] != "failed")).all(), table
        failed += int((found["status"] == "failed").sum())
    assert finished.run.returncode == int(failed > 0), finished.run.stderr


def test_replies_by_schema_and_numbers_by_logprobs_are_read(finished: Finished) -> None:
    explained = rows(finished.file, "explanations")
    assert (explained["status"] == "ok").all(), explained["error"].tolist()
    assert explained["text"].str.len().gt(0).all()
    simulated = rows(finished.file, "simulations").query("control != 'lookup'")
    right = simulated.query("status == 'ok'")
    assert len(right) == len(simulated) if finished.kind == "logprobs" else len(right) >= len(simulated) / 2
    expected, coverage = (np.concatenate(right[name].tolist()) for name in ("expected", "coverage"))
    assert ((expected >= 0) & (expected <= 10)).all()
    assert ((coverage > 0) & (coverage <= 1)).all()


def test_the_tables_carry_the_tokens_that_the_server_counted(finished: Finished) -> None:
    tables = [rows(finished.file, name) for name in ("explanations", "simulations")]
    assert sum(int(table["prompt_tokens"].sum()) for table in tables) == finished.read
    assert sum(int(table["completion_tokens"].sum()) for table in tables) == finished.written


def test_a_repeated_run_asks_nothing(finished: Finished, llama: LlamaServer) -> None:
    before, asked = all_rows(finished.file.parent / NAME), llama.tokens()
    again = call("run", "--config", str(finished.file), "--redo", "explain", **{KEY_VARIABLE: KEY})
    assert again.returncode == finished.run.returncode, again.stderr
    assert llama.tokens() == asked
    assert all_rows(finished.file.parent / NAME) == before


def test_the_key_is_in_no_file_and_in_nothing_printed(finished: Finished) -> None:
    assert not files_with(KEY, finished.file.parent)
    for process in (finished.doctor, finished.run):
        assert KEY not in process.stdout + process.stderr
