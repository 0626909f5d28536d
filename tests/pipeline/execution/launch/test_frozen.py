"""A launched worker reads the run file as it was, wherever it runs."""

import os
from pathlib import Path

import pytest

from pipeline.command_line.options import load_run
from pipeline.config.run_file import PRESETS, load_config
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import frozen, launches, new_launch
from stages.settings import SECTIONS
from tests.pipeline.toy import toy_config

OTHER = """
[run]
name = "other"
folder = "out"

[subject]
model = "models/one"
modules = ["layers.0.mlp"]

[corpus]
source = "texts"

[explain]
explainer = "max_activation"
units = { "layers.0.mlp" = [3, 5] }

[explain.engine]
model = "m"
base_url = "http://127.0.0.1:9/v1"
headers = { "X Odd-Header" = "env:NAME" }

[launch.slurm]
setup = ["module load \\"cuda\\"", 'echo $HOME']
"""


@pytest.fixture(autouse=True)
def _back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.getcwd())


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_a_frozen_run_file_has_every_setting(preset: str, tmp_path: Path) -> None:
    config = load_config(preset, SECTIONS)
    file = tmp_path / "run.toml"
    file.write_text(frozen(config), encoding="utf-8")
    again = load_config(str(file), SECTIONS)
    assert again.model_copy(update={"run": config.run}) == config
    assert (again.run.name, again.root) == (config.run.name, config.root.absolute())


def test_its_paths_lead_to_the_same_places_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    file = tmp_path / "project" / "my.toml"
    file.write_text(OTHER.replace('"out"', f'"{tmp_path}/out"'), encoding="utf-8")
    config = load_run(str(file))
    launch = new_launch(config, "local")
    os.chdir("/")
    again = load_run(str(launch.run_file))
    assert Path.cwd() == tmp_path / "project"
    assert again.root == config.root
    assert again.model_copy(update={"run": config.run}) == config


def test_a_launch_keeps_the_settings_of_its_time_and_nobody_else_reads_them(tmp_path: Path) -> None:
    launch = new_launch(toy_config(tmp_path, seed=5), "slurm").with_jobs({"count": "17"})
    assert "seed = 5" in launch.run_file.read_text()
    assert launch.run_file.stat().st_mode & 0o077 == 0
    (found,) = launches(tmp_path / "toy")
    assert (found.engine, found.jobs, found.owner) == ("slurm", {"count": "17"}, launch.owner)


def test_a_damaged_launch_is_named(tmp_path: Path) -> None:
    launch = new_launch(toy_config(tmp_path), "local")
    (launch.folder / "launch.json").write_text("{")
    with pytest.raises(UserError, match=r"launch\.json is damaged"):
        launches(tmp_path / "toy")
