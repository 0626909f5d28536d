"""Every command and query that the documentation shows is run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from pipeline.run_file import parse_config
from tests.integration.endpoint_run import KEY, write_run
from tests.integration.made_up_model import reply
from tests.pipeline.llm.endpoint.loopback import Loopback

README = Path("README.md").read_text(encoding="utf-8")
CARD = Path("outputs/README.md").read_text(encoding="utf-8")
COMMANDS = sorted({line.split("  #")[0].strip() for line in re.findall(r"^    (make [^\n]*)$", README, flags=re.M)})
ENDPOINT = "pipeline/presets/endpoint.toml"
SASC = "pipeline/presets/sasc.toml"
OF_THE_SETUP = {"make run", "make test", "make setup", f"make run CONFIG={ENDPOINT}", f"make run CONFIG={SASC}"}
"""These are what runs these tests, or are run by a test of their own; their recipes are read instead."""


def make(command: str, finished: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A make command of the README, with the finished run in place of my.toml and this Python in place of .venv."""
    words = shlex.split(command.replace("my.toml", str(finished)))[1:]
    if not any(word.startswith("CONFIG=") for word in words):
        words.append(f"CONFIG={finished}")
    binaries = f"BIN={Path(sys.executable).parent}"
    return subprocess.run(
        ["make", "--no-print-directory", *options, *words, binaries, "INSTALLED="],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )


@pytest.fixture(scope="module")
def over_endpoint(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Iterator[Path]:
    """The preset for an endpoint with the address of a server on loopback, its run recorded already."""
    text = Path(ENDPOINT).read_text(encoding="utf-8")
    with Loopback(reply) as server:
        text = text.replace("https://api.openai.com/v1", server.base_url)
        yield write_run(tmp_path_factory.mktemp("over-endpoint"), recorded, text[text.index("[explain]") :])


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in OF_THE_SETUP and "REDO" not in c])
def test_a_command_of_the_readme_works(
    command: str, finished: Path, over_endpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    done = make(command.replace(ENDPOINT, str(over_endpoint)), finished)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", sorted(OF_THE_SETUP & set(COMMANDS)) + [c for c in COMMANDS if "REDO" in c])
def test_a_command_that_takes_long_is_one_line_into_the_program(command: str, finished: Path) -> None:
    recipe = make(command, finished, "--dry-run").stdout.strip().splitlines()
    assert len(recipe) == 1
    module = recipe[0].split(" -m ")[1].split()[0]
    assert module in {"pipeline", "pytest"}


def test_the_readme_names_the_two_commands_first() -> None:
    assert re.findall(r"^    (make \w+)", README, flags=re.M)[:2] == ["make run", "make test"]


def test_the_run_file_of_the_readme_is_valid_and_so_is_its_engine_behind_an_endpoint() -> None:
    whole, part, sasc = (tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", README, flags=re.S))
    assert parse_config(whole, "README.md").run.name == "my-run"
    whole["explain"]["engine"] = part["explain"].pop("engine")
    config = parse_config(whole | {"budget": part["budget"]}, "README.md")
    assert config.explain.engine is not None
    assert config.explain.engine.base_url is not None
    assert parse_config(
        sasc | {"run": sasc["run"] | whole["run"], "corpus": whole["corpus"]}, "README.md"
    ).sasc.synthesize_engine


@pytest.mark.parametrize("query", re.findall(r"```sql\n(.*?)```", CARD, flags=re.S))
def test_a_query_of_the_data_card_works(query: str, root: Path) -> None:
    query = query.replace("outputs/demo", str(root)).replace("layers.15.mlp", "layers.9.mlp")
    assert duckdb.execute(query).fetchall()


def test_the_python_of_the_data_card_works(root: Path) -> None:
    [code] = re.findall(r"```python\n(import pandas.*?)```", CARD, flags=re.S)
    names: dict[str, object] = {}
    exec(code.replace("outputs/demo", str(root)).replace("layers.15.mlp", "layers.9.mlp"), names)
    assert len(names["scores"]) > 0  # type: ignore[arg-type]
    assert names["unit"].num_rows > 0  # type: ignore[attr-defined]
