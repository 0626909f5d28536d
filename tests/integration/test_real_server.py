"""Explain and simulate over llama.cpp's server with the demo's model, with log-probabilities and with a JSON schema."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, files_with, rows, sections, write_run
from tests.integration.llama_server import CONTEXT, MODEL, SLOTS, LlamaServer
from tests.integration.reduced import all_rows, call

pytestmark = pytest.mark.slow

UNITS = {"logprobs": [70], "schema": [5, 70]}
METHODS = {"logprobs": ("token_activation", "one_at_a_time"), "schema": ("max_activation", "json")}
BODY = "body = { repeat_penalty = 1.12 }"
"""A field of llama.cpp's own; without it so small a model lists tokens until the limit of the reply cuts it."""


@dataclass(frozen=True)
class Finished:
    """A run to its end, and what the server counted meanwhile."""

    kind: str
    file: Path
    done: "CompletedProcess[str]"
    read: int
    """Tokens of prompts."""
    written: int


def write(kind: str, folder: Path, recorded: Path, llama: LlamaServer) -> Path:
    """The run file of one of METHODS."""
    explainer, simulator = METHODS[kind]
    sizes = {"candidates": 1, "controls": 0, "pack": 2, "concurrency": SLOTS}
    text = sections(llama.base_url, MODEL, explainer, simulator, UNITS[kind], more=BODY, **sizes)
    return write_run(folder, recorded, text)


@pytest.fixture(scope="module")
def probed(
    tmp_path_factory: pytest.TempPathFactory, recorded: Path, llama: LlamaServer
) -> tuple["CompletedProcess[str]", Path]:
    """The doctor's visit, and the reply cache that it leaves."""
    file = write("logprobs", tmp_path_factory.mktemp("probed"), recorded, llama)
    return call("doctor", "--config", str(file), **{KEY_VARIABLE: KEY}), file.parent / NAME / "_replies"


@pytest.fixture(scope="module", params=list(METHODS))
def finished(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    recorded: Path,
    llama: LlamaServer,
    probed: tuple["CompletedProcess[str]", Path],
) -> Finished:
    """A run that knows the endpoint from the doctor."""
    file = write(request.param, tmp_path_factory.mktemp(request.param), recorded, llama)
    shutil.copytree(probed[1], file.parent / NAME / "_replies")
    before = llama.tokens()
    done = call("run", "--config", str(file), **{KEY_VARIABLE: KEY})
    read, written = np.subtract(llama.tokens(), before).tolist()
    return Finished(request.param, file, done, read, written)


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


def test_the_doctor_finds_what_the_server_does(probed: tuple["CompletedProcess[str]", Path]) -> None:
    doctor, _ = probed
    assert doctor.returncode == 0, doctor.stderr
    found = dict(re.findall(r"^(\S.*?)  +(.*)$", doctor.stdout, re.MULTILINE))
    assert found["alternatives in replies"] == "20"
    assert found["context"] == f"{CONTEXT:,} tokens"
    assert [found[name] for name in ("JSON schema", "seed", "several replies (n)")] == ["yes", "yes", "no"]


def test_every_unit_has_a_score_or_a_named_failure(finished: Finished) -> None:
    assert "Traceback" not in finished.done.stderr
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
    assert finished.done.returncode == int(failed > 0), finished.done.stderr


def test_replies_by_schema_and_numbers_by_logprobs_are_read(finished: Finished) -> None:
    explained = rows(finished.file, "explanations")
    assert (explained["status"] == "ok").all(), explained["error"].tolist()
    assert explained["text"].str.len().gt(0).all()
    simulated = rows(finished.file, "simulations").query("control != 'lookup'")
    right = simulated.query("status == 'ok'")
    assert len(right) >= (1.0 if finished.kind == "logprobs" else 0.3) * len(simulated), simulated["error"].tolist()
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
    assert again.returncode == finished.done.returncode, again.stderr
    assert llama.tokens() == asked
    assert all_rows(finished.file.parent / NAME) == before


def test_the_key_is_in_no_file_and_in_nothing_printed(
    finished: Finished, probed: tuple["CompletedProcess[str]", Path]
) -> None:
    assert not files_with(KEY, finished.file.parent)
    assert KEY not in finished.done.stdout + finished.done.stderr
    assert KEY not in probed[0].stdout + probed[0].stderr
