"""What identifies the sources of activations: content, wherever it lies, of what the modules name and nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.subjects.identity import source_file
from pipeline.subjects.kinds.precomputed_files import write_activations
from pipeline.subjects.module_kinds import module_identity, needs_model, source_identities
from stages.settings import SECTIONS

IDS, VALUES = np.zeros((2, 3), np.int64), np.ones((2, 3, 1), np.float32)


def run_file(modules: list[str], **subject: Any) -> RunConfig:
    return parse_config(
        {
            "run": {"name": "r"},
            "subject": {"model": "m", "modules": modules, **subject},
            "corpus": {"source": "unused"},
        },
        "test.toml",
        SECTIONS,
    )


def test_parts_of_the_model_alone_have_no_further_identity() -> None:
    modules = ["layers.0.mlp", "layers.3.residual", "layers.2.attn"]
    assert source_identities(run_file(modules)) == {}
    assert needs_model(["precomputed:a", *modules])
    assert not needs_model(["precomputed:a", "black_box:b"])


def test_a_folder_of_activations_is_known_by_its_content(tmp_path: Path) -> None:
    def identity(name: str) -> Any:
        return source_identities(run_file(["precomputed:x"], precomputed={"x": str(tmp_path / name)}))["precomputed:x"]

    write_activations(tmp_path / "a", 0, IDS, VALUES)
    first = identity("a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert identity("b") == first
    write_activations(tmp_path / "b", 0, IDS, VALUES + 1)
    assert identity("b") != first
    write_activations(tmp_path / "b", 0, IDS, VALUES)
    write_activations(tmp_path / "b", 1, IDS, VALUES)
    assert identity("b") != first


@pytest.mark.parametrize(("kind", "section"), [("sae", "saes"), ("directions", "directions")])
def test_files_of_the_layers_that_are_named_count_and_no_others(tmp_path: Path, kind: str, section: str) -> None:
    def identities(**settings: Any) -> Any:
        entry = {"path": str(tmp_path / "layer{layer}"), **settings}
        return source_identities(run_file([f"layers.2.{kind}:a", f"layers.5.{kind}:a"], **{section: {"a": entry}}))

    for layer in (2, 3, 5):
        (tmp_path / f"layer{layer}").mkdir()
        (tmp_path / f"layer{layer}" / "w.safetensors").write_bytes(bytes([layer]))
    first = identities()
    assert set(first) == {f"layers.2.{kind}:a", f"layers.5.{kind}:a"}
    (tmp_path / "layer3" / "w.safetensors").write_bytes(b"other")
    (tmp_path / "layer5" / "README.md").write_text("words")
    assert identities() == first
    assert identities(reads="mlp_out") != first
    (tmp_path / "layer5" / "w.safetensors").write_bytes(b"other")
    changed = identities()
    assert changed[f"layers.2.{kind}:a"] == first[f"layers.2.{kind}:a"]
    assert changed[f"layers.5.{kind}:a"] != first[f"layers.5.{kind}:a"]


def test_the_settings_beside_a_coder_s_file_count(tmp_path: Path) -> None:
    def identity() -> Any:
        entry = {"path": str(tmp_path / "sae.safetensors")}
        return source_identities(run_file(["layers.0.sae:a"], saes={"a": entry}))

    (tmp_path / "sae.safetensors").write_bytes(b"weights")
    (tmp_path / "cfg.json").write_text("{}")
    first = identity()
    (tmp_path / "cfg.json").write_text('{"k": 3}')
    assert identity() != first


@pytest.mark.parametrize(
    ("file", "one", "same", "others"),
    [
        ("sae.safetensors", "layers.1", "again/layers.1", ["layers.1.mlp", "layers.1.self_attn", "layers.2", "mine"]),
        ("params.npz", "gemma-scope-2b-pt-res/layer_1/a", "gemma-scope-2b-pt-res/layer_1/b",
         ["gemma-scope-2b-pt-mlp/layer_1/a", "gemma-scope-2b-pt-transcoders/layer_1/a", "gemma-scope-2b-pt-res/layer_2/a", "mine"]),
        ("sae_weights.safetensors", "layers.1", "layers.1.mlp", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("names", ["folder", "file"])
def test_a_coder_s_folder_counts_where_it_tells_what_is_read(
    tmp_path: Path, names: str, file: str, one: str, same: str, others: list[str]
) -> None:
    def identity(folder: str, **settings: Any) -> Any:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / file).write_bytes(b"the same")
        path = tmp_path / folder / (file if names == "file" else "")
        return source_identities(run_file(["layers.1.sae:a"], saes={"a": {"path": str(path), **settings}}))

    assert identity(one) == identity(same)
    for other in others:
        assert identity(other) != identity(one)
        assert identity(other, reads="mlp_out") == identity(one, reads="mlp_out"), "the run file says what is read"


def test_entries_that_no_module_names_count_for_nothing(tmp_path: Path) -> None:
    write_activations(tmp_path, 0, IDS, VALUES)
    alone = source_identities(run_file(["precomputed:x"], precomputed={"x": str(tmp_path)}))
    more = run_file(
        ["precomputed:x"],
        precomputed={"x": str(tmp_path), "y": "nowhere"},
        saes={"s": {"path": "nowhere"}},
        black_boxes={"b": {"call": "no.such:function"}},
    )
    assert source_identities(more) == alone


def test_a_function_is_known_by_its_settings_and_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def identity(**settings: Any) -> Any:
        entry = {"call": "known_by_source.part:function", **settings}
        return source_identities(run_file(["black_box:f"], black_boxes={"f": entry}))["black_box:f"]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "known_by_source").mkdir()
    (tmp_path / "known_by_source" / "__init__.py").write_text("raise RuntimeError('imported')")
    file = tmp_path / "known_by_source" / "part.py"
    absent = identity()
    assert absent["source"] is None
    file.write_text("def function(texts): return [1 for _ in texts]")
    assert source_file("known_by_source.part:function") == file
    first = identity()
    assert identity(batch_size=7) == first, "how many texts are asked together changes no row"
    for changed in ({"version": "2"}, {"window": 5}, {"units": 2}, {"call": "known_by_source.part:other"}):
        assert identity(**changed) != first
    file.write_text("def function(texts): return [2 for _ in texts]")
    assert identity() != first


def test_arguments_of_a_factory_count_and_files_among_them_by_content(tmp_path: Path, tiny_llama: Path) -> None:
    def identity(**arguments: Any) -> Any:
        entry = {"call": "pipeline.black_boxes.direction:direction", "arguments": arguments}
        return source_identities(run_file(["black_box:f"], black_boxes={"f": entry}))["black_box:f"]

    (tmp_path / "a.npy").write_bytes(b"one")
    (tmp_path / "b.npy").write_bytes(b"one")
    (tmp_path / "c.npy").write_bytes(b"two")
    first = identity(path=str(tmp_path / "a.npy"), words=["sea", "sky"])
    assert identity(path=str(tmp_path / "b.npy"), words=["sea", "sky"]) == first
    assert identity(path=str(tmp_path / "c.npy"), words=["sea", "sky"]) != first
    assert identity(path=str(tmp_path / "a.npy"), words=["sea", "land"]) != first
    assert identity(nested={"deep": [str(tmp_path / "a.npy")]}) == identity(nested={"deep": [str(tmp_path / "b.npy")]})
    model = identity(model=str(tiny_llama))
    assert len(model["arguments"]["model"]["revision"]) == 64
    assert identity(concepts=[str(tmp_path)]) != identity(concepts=["tests"]), "a word that is also a folder is a word"


def test_where_a_function_runs_changes_no_row(tmp_path: Path) -> None:
    def identity(**arguments: Any) -> Any:
        entry = {"call": "pipeline.black_boxes.concept:concept", "arguments": {"concepts": ["sea"], **arguments}}
        return source_identities(run_file(["black_box:f"], black_boxes={"f": entry}))["black_box:f"]

    for device in ("auto", "cpu", "cuda", "cuda:3", "mps"):
        assert identity(device=device) == identity()
    for other in ("microphone", "cuda:", 3):
        assert identity(device=other) != identity(), "an argument of this name that is no device counts"


def test_functions_of_installed_packages_are_found_and_built_in_ones_have_no_file() -> None:
    found = source_file("json.decoder:JSONDecoder")
    assert found is not None
    assert found.name == "decoder.py"
    assert source_file("sys:getsizeof") is None
    assert source_file("no_such_package.part:f") is None


@pytest.mark.parametrize(
    ("module", "subject", "says"),
    [
        ("precomputed:text", {"precomputed": {"test": "x"}}, "subject.precomputed does not describe; did you mean 'test'"),
        ("precomputed:text", {}, r"no \[subject.precomputed\]"),
        ("black_box:f", {}, r"no \[subject.black_boxes\]"),
        ("layers.1.sae:a", {"saes": {"b": {"path": "x"}}}, "subject.saes does not describe; allowed: b"),
        ("layers.1.directions:a", {}, r"no \[subject.directions\]"),
        ("layers.1.sae:a", {"saes": {"a": {"path": "gone/{layer}"}}}, r"subject.saes.a.path = 'gone/\{layer\}': there is no gone/1"),
        ("precomputed:test", {"precomputed": {"test": "gone"}}, "subject.precomputed.test = 'gone' holds no .safetensors"),
    ],
)  # fmt: skip
def test_what_is_not_described_or_not_there_is_told(module: str, subject: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        source_identities(run_file([module], **subject))


def test_the_corpus_of_a_folder_has_the_folder_s_identity(tmp_path: Path) -> None:
    write_activations(tmp_path, 0, IDS, VALUES)
    config = run_file(["precomputed:x"], precomputed={"x": str(tmp_path)})
    assert source_identities(config)["precomputed:x"] == module_identity(config, "precomputed:x")


def test_working_out_identities_imports_no_model_library() -> None:
    code = "import sys, stages.record.scan, pipeline.subjects.identity, stages.corpus; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
