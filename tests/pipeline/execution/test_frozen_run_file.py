"""A run file that is kept holds every setting and no secret, and is read back as it was."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig
from pipeline.config.run_file import load_config, parse_config
from pipeline.errors import UserError
from pipeline.execution.frozen_run_file import as_toml, freeze, thaw
from stages.settings import SECTIONS


def run_file(**engine: Any) -> RunConfig:
    model = {"model": "m", "base_url": "https://host/v1", **engine}
    values = {
        "run": {"name": "kept", "folder": "/somewhere"},
        "subject": {"model": "m", "modules": ["layers.0.mlp"]},
        "corpus": {"source": "c.txt"},
        "explain": {"explainer": "max_activation", "engine": model},
    }
    return parse_config(values, "kept.toml", SECTIONS)


@pytest.mark.parametrize("preset", ["demo", "endpoint", "sasc", "all-layers"])
def test_what_is_kept_is_read_back_as_it_was(preset: str) -> None:
    config = load_config(preset, SECTIONS)
    frozen = json.loads(json.dumps(freeze(config)))
    assert frozen["left_out"] == []
    assert thaw(frozen, config.root, SECTIONS).config == config


def test_it_is_a_run_file(tmp_path: Path) -> None:
    config = run_file(body={"a b": ['"quoted"\x7f\n', {"c": 1.5}], "stop": True}, headers={"X-From": "env:MY_NAME"})
    (tmp_path / "kept.toml").write_text(as_toml(freeze(config)["run_file"]), encoding="utf-8")
    read = load_config(str(tmp_path / "kept.toml"), SECTIONS)
    assert read.model_copy(update={"run": config.run}) == config
    assert tomllib.loads(as_toml({"a": {"nothing": None}})) == {"a": {}}


SECRETS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a header": ({"headers": {"X-Key": "hidden-1"}}, "hidden-1", "headers.X-Key"),
    "a header that is meant to be a variable": ({"headers": {"X-Key": "env:hidden1"}}, "hidden1", "headers.X-Key"),
    "a key in place of its variable": ({"key_variable": "sk_hidden_1"}, "sk_hidden_1", "key_variable"),
    "user and password": ({"base_url": "https://user:hidden@host/v1"}, "hidden", "base_url"),
    "a key in the query": ({"base_url": "https://host/v1?key=hidden"}, "hidden", "base_url"),
    "a field that is called a key": ({"body": {"x": {"api_key": "hid"}}}, 'hid"', "body.x.api_key"),
    "a field that looks like a key": ({"body": {"x": "sk-hidden0123456789abcdef"}}, "sk-hidden", "body.x"),
    "one in a list": ({"body": {"x": ["sk-hidden0123456789abcdef", "low"]}}, "sk-hidden", "body.x"),
    "an address in the body": ({"body": {"hook": "see http://u:hidden@h/"}}, "hidden", "body.hook"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_what_may_be_secret_is_left_out_and_named(name: str) -> None:
    engine, secret, place = SECRETS[name]
    config = run_file(**engine)
    assert secret in config.model_dump_json()
    frozen = freeze(config)
    assert secret not in json.dumps(frozen)
    assert frozen["left_out"] == [f"explain.engine.{place}"]
    assert thaw(frozen, Path("/other/run"), SECTIONS).config.explain.engine.model == "m"  # type: ignore[attr-defined]


def test_what_is_no_secret_stays() -> None:
    body = {
        "reasoning_effort": "low",
        "seed": 12345678901234567890,
        "stop": ["\n"],
        "chat_template_kwargs": {"think": False},
    }
    config = run_file(key_variable="OPENAI_API_KEY", headers={"X-Org": "env:MY_ORG"}, body=body, tokenizer="org/name")
    frozen = freeze(config)
    assert frozen["left_out"] == []
    assert frozen["run_file"]["explain"]["engine"]["body"] == body
    assert frozen["run_file"]["explain"]["engine"]["key_variable"] == "OPENAI_API_KEY"


def test_a_run_that_was_moved_is_where_it_is_now() -> None:
    frozen = freeze(run_file())
    assert "/somewhere" not in json.dumps(frozen)
    assert thaw(frozen, Path("/elsewhere/renamed"), SECTIONS).config.root == Path("/elsewhere/renamed")


def test_settings_can_be_put_in() -> None:
    frozen = freeze(run_file(headers={"X-Key": "hidden"}))
    found = thaw(frozen, Path("/a/b"), SECTIONS, ["explain.engine.headers.X-Key=env:MY_KEY", "explain.units=5"]).config
    assert found.explain.engine.headers == {"X-Key": "env:MY_KEY"}  # type: ignore[attr-defined]
    assert found.explain.units == 5  # type: ignore[attr-defined]


def test_a_setting_that_is_gone_by_now_is_told() -> None:
    frozen = freeze(run_file())
    frozen["run_file"]["explain"]["gone"] = 1
    with pytest.raises(UserError, match=r"run file kept of /a/b:\n.*unknown key 'explain.gone'"):
        thaw(frozen, Path("/a/b"), SECTIONS)
