"""A run says how it was made: by which run file, on which machines, and what each stage took."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.commands.run import run_pipeline
from pipeline.errors import UserError
from pipeline.execution.provenance import FILE, MACHINES, keep_provenance, read_provenance
from pipeline.execution.shared_shards import Sharing
from pipeline.execution.stage import Shard, Stage
from pipeline.schemas import TableSchema, column
from pipeline.storage.footers import git_commit
from tests.pipeline.toy import TOY, toy_config

ANSWERS = TableSchema(
    "answers",
    1,
    pa.schema(
        [
            column("model", pa.string(), "model"),
            column("prompt_tokens", pa.int32(), "read"),
            column("completion_tokens", pa.int32(), "written"),
        ]
    ),
)
ROWS: dict[str, list[Any]] = {
    "model": ["a", "b", "a", "", None],
    "prompt_tokens": [1, 20, 300, 7, 7],
    "completion_tokens": [4, None, 5, 7, 7],
}


class Answerer:
    """What a stage asks, with what it can do."""

    def profile(self) -> dict[str, Any]:
        return {"seed": False}


def asking(_: Shard, context: Any) -> Mapping[str, pa.Table]:
    context.once("engine", lambda _: Answerer())
    return {"answers": pa.table(ROWS, schema=ANSWERS.schema)}


ASK = Stage(
    "ask", "ask", (), (ANSWERS,), lambda _: {}, lambda *_: [Shard("part-00000", {}), Shard("part-1", {})], asking
)


def kept(folder: Path) -> dict[str, Any]:
    found = read_provenance(folder / "toy")
    assert found is not None
    return found


def test_it_says_what_each_stage_took(tmp_path: Path) -> None:
    run_pipeline(toy_config(tmp_path), {**TOY, "ask": ASK}, ["count", "square", "ask"])
    count, square, ask = kept(tmp_path)["stages"]
    assert (count["name"], count["shards"], count["rows"], count["tokens"]) == ("count", 3, {"numbers": 10}, {})
    assert (square["failed_rows"], square["rows"]) == (1, {"squares": 10, "labels": 10})
    assert ask["tokens"] == {"a": {"read": 602, "written": 18}, "b": {"read": 40, "written": 0}}
    assert square["commits"] == [git_commit()]
    assert count["seconds"] >= 0
    assert (count["profiles"], ask["profiles"]) == ([], [{"seed": False}])


def test_it_is_written_at_the_end_of_each_stage(tmp_path: Path) -> None:
    run_pipeline(toy_config(tmp_path), TOY, ["count"])
    assert [stage["name"] for stage in kept(tmp_path)["stages"]] == ["count"]
    run_pipeline(toy_config(tmp_path), TOY, ["count", "square"])
    assert [stage["name"] for stage in kept(tmp_path)["stages"]] == ["count", "square"]


def test_a_finished_run_that_has_none_gets_it(tmp_path: Path) -> None:
    run_pipeline(toy_config(tmp_path), TOY, ["count", "square"])
    before = kept(tmp_path)
    (tmp_path / "toy" / FILE).unlink()
    run_pipeline(toy_config(tmp_path), TOY, ["count", "square"])
    assert kept(tmp_path) == before


def test_workers_write_the_same_whoever_is_last(tmp_path: Path) -> None:
    for part in ((1, 2), (0, 2)):
        run_pipeline(toy_config(tmp_path), TOY, ["count"], Sharing(part))
    text = (tmp_path / "toy" / FILE).read_text()
    assert kept(tmp_path)["stages"][0]["rows"] == {"numbers": 10}
    keep_provenance(toy_config(tmp_path), TOY)
    assert (tmp_path / "toy" / FILE).read_text() == text


def test_it_names_the_machines_with_the_versions_of_what_they_ran(tmp_path: Path) -> None:
    run_pipeline(toy_config(tmp_path), TOY, ["count"])
    other = {"host": "node-2", "packages": {"torch": "1.0"}}
    (tmp_path / "toy" / MACHINES / "node-2-00000000.json").write_text(json.dumps(other))
    keep_provenance(toy_config(tmp_path), TOY)
    [own] = [machine for machine in kept(tmp_path)["machines"] if machine != other]
    assert other in kept(tmp_path)["machines"]
    assert own["packages"]["pyarrow"] == pa.__version__
    assert own["python"] == ".".join(map(str, sys.version_info[:3]))
    assert own["cpu"]
    assert own["gpus"] == [] or all(own["gpus"])
    assert "pytest" not in own["packages"]


def test_gpus_are_those_that_the_driver_names(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "NVIDIA H100 80GB HBM3, 81559 MiB, 550.54"\n')
    tool.chmod(0o755)
    program = "from pipeline.execution.this_machine import this_machine; print(this_machine()['gpus'])"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"PATH": path}
    )
    assert found.stdout.strip() == "['NVIDIA H100 80GB HBM3, 81559 MiB, 550.54']"


def test_it_needs_no_model_library(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from tests.pipeline.toy import TOY, toy_config
from pipeline.execution.provenance import keep_provenance
keep_provenance(toy_config(Path(sys.argv[1])), TOY)
print([name for name in ("torch", "transformers", "numba", "pandas", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "{"])
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    assert read_provenance(tmp_path) is None
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=r"provenance\.json does not say how a run was made"):
        read_provenance(tmp_path)
