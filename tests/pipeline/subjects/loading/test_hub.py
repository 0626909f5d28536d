"""Names on the hub become commits, online and offline, against a real server on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from pipeline.errors import UserError
from pipeline.subjects.loading.hub import resolve_on_hub
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.loading.model_source import resolve_model
from tests.pipeline.subjects.loading.small_hub import COMMIT, small_hub


@pytest.fixture(scope="module")
def address(tiny_llama: Path) -> Iterator[str]:
    with small_hub(tiny_llama) as address:
        yield address


@pytest.fixture
def hub(address: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The hub is the small one, its cache an empty folder; the folder is returned."""
    resolve_on_hub.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def unreachable(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return hub


@pytest.mark.parametrize("spec", ["org/tiny", "org/tiny@v1", f"org/tiny@{COMMIT}"])
def test_a_model_is_identified_by_its_commit(hub: Path, spec: str) -> None:
    source = resolve_model(spec)
    assert (source.kind, source.location, source.revision) == ("hub", "org/tiny", COMMIT)


def test_a_dataset_is_identified_by_its_commit(hub: Path) -> None:
    assert resolve_on_hub("org/texts", "main", "dataset") == COMMIT


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("org/none", ["no model 'org/none'", "hf auth login", "./NAME"]),
        ("org/tiny@v9", ["no revision 'v9'", "branch"]),
        ("org/gated", ["gated", "HF_TOKEN"]),
        ("org/pickled", ["no safetensors", "any code"]),
        ("org/down", ["cannot be reached", "local folder"]),
        ("a--b/c", ["not a hub id"]),
    ],
)
def test_the_hubs_refusals_are_told(hub: Path, spec: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model(spec)
    for part in says:
        assert part in str(caught.value)


def _remember(cache: Path, revision: str, *, complete: bool = True) -> None:
    """What the hub's cache looks like after a download."""
    folder = cache / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(COMMIT)
    if complete:
        (folder / "snapshots" / COMMIT).mkdir(parents=True)


def test_without_a_connection_the_cache_knows_the_commit(unreachable: Path) -> None:
    _remember(unreachable, "main")
    assert resolve_model("org/tiny").revision == COMMIT


def test_in_offline_mode_the_cache_knows_the_commit(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _remember(hub, "v1")
    assert resolve_model("org/tiny@v1").revision == COMMIT


@pytest.mark.parametrize("spec", ["org/tiny", "org/tiny@v1"])
def test_without_connection_and_cache_the_way_on_is_told(unreachable: Path, spec: str) -> None:
    with pytest.raises(UserError, match=r"cannot be reached .*not in its cache .*HF_HUB_OFFLINE.*local folder"):
        resolve_model(spec)


def test_files_that_are_not_in_the_cache_are_told_offline(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _remember(hub, "main", complete=False)
    with pytest.raises(UserError, match=r"cannot be reached .*not in its cache"):
        load_tokenizer("org/tiny")


LOAD = """
import sys
from pipeline.subjects.loading.hub import fetch_model
folder = fetch_model("org/tiny", sys.argv[1], weights=False)
print([file.name for file in folder.glob("*.safetensors")], file=sys.stderr)
import torch
from pipeline.subjects.loading.model_loading import load_language_model
from pipeline.subjects.loading.model_loading import describe_model
loaded = load_language_model("org/tiny@v1")
print(loaded.revision, sum(weight.double().sum().item() for weight in loaded.model.parameters()))
print(describe_model("org/tiny@v1"))
"""


@pytest.mark.slow
def test_a_model_loads_from_the_hub_and_again_without_it(address: str, tiny_llama: Path, tmp_path: Path) -> None:
    folders = {"HF_HOME": str(tmp_path / "hf"), "NEUROGLOSS_CACHE": str(tmp_path / "own")}
    variables = os.environ | folders | {"HF_HUB_DISABLE_XET": "1"}
    outputs = []
    for endpoint in (address, "http://127.0.0.1:9"):
        run = subprocess.run(
            [sys.executable, "-c", LOAD, COMMIT],
            env=variables | {"HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        outputs.append(run.stdout)
        weights = [] if endpoint == address else ["model.safetensors"]
        assert str(weights) in run.stderr, "weights are fetched when they are wanted"
    assert outputs[0].startswith(COMMIT)
    assert "context_length=40" in outputs[0]
    assert outputs[0] == outputs[1]
