"""What a Ray node is told beside its command. Ray itself is in tests/cluster."""

import sys
from pathlib import Path

import pytest

from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import new_launch
from pipeline.execution.launch.ray import keys_of, launch_on_ray
from stages.settings import SECTIONS
from tests.pipeline.toy import TOY, toy_config


def test_nodes_get_the_keys_of_endpoints_and_no_file_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = {
        "model": "m",
        "base_url": "http://h/v1",
        "key_variable": "MY_KEY",
        "headers": {"X": "env:MY_TOKEN", "Y": "y"},
    }
    config = parse_config(
        {
            "run": {"name": "a", "folder": str(tmp_path)},
            "subject": {"model": "m", "modules": ["layers.0.mlp"]},
            "corpus": {"source": "c.txt"},
            "explain": {"explainer": "max_activation", "engine": engine},
        },
        "a.toml",
        SECTIONS,
    )
    assert keys_of(config) == {}
    monkeypatch.setenv("MY_KEY", "secret-1")
    monkeypatch.setenv("MY_TOKEN", "secret-2")
    monkeypatch.setenv("OTHER", "secret-3")
    assert keys_of(config) == {"MY_KEY": "secret-1", "MY_TOKEN": "secret-2"}
    launch = new_launch(config, "ray")
    assert not [file for file in launch.folder.rglob("*") if file.is_file() and "secret" in file.read_text()]


def test_without_ray_a_launch_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    config = toy_config(tmp_path)
    with pytest.raises(UserError, match=r"--launch ray needs ray; install it with"):
        launch_on_ray(new_launch(config, "ray"), config, TOY, list(TOY), ["run"], str)
