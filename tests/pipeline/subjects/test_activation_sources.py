"""The model, functions and folders as one source, of which only what is needed is opened."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.schemas import CORPUS
from pipeline.subjects.activation_sources import check_sources, describe_modules, open_source
from pipeline.subjects.activations import ActivationSource, ModuleUnits, TokenBatch
from pipeline.subjects.kinds.precomputed_files import write_activations
from stages.record.backends.contract import UnitSums
from stages.record.record_sizes import record_sizes
from stages.record.recorded_batch import TokenTable
from stages.record.scan import SCAN, Recorder, scan
from stages.settings import SECTIONS, Explain, Record
from stages.units import refuse_unknown_units

IDS = np.random.default_rng(0).integers(2, 300, (4, 8))
VALUES = np.random.default_rng(1).random((4, 8, 3)).astype(np.float32)
ALL = ["precomputed:made", "layers.1.mlp", "black_box:length", "layers.0.mlp"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A folder with a model, activations, and a corpus whose sequences are the rows in falling order."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_llama, folder / "model")
    shutil.copytree(tiny_llama, folder / "tokenizer")
    (folder / "tokenizer" / "model.safetensors").write_bytes(b"no weights")
    write_activations(folder / "made", 0, IDS, VALUES)
    (folder / "of_length.py").write_text("def length(texts): return [len(text) for text in texts]")
    rows = {
        "seq_id": range(4),
        "split": ["explain"] * 4,
        "doc_id": [f"00000.safetensors:{row}" for row in (3, 2, 1, 0)],
        "start": [0] * 4,
        "token_ids": IDS[::-1].tolist(),
        "tokens": [["a"] * 8] * 4,
    }
    (folder / "run" / CORPUS.path).mkdir(parents=True)
    file = folder / "run" / CORPUS.path / "part-00000.parquet"
    pq.write_table(pa.table(rows, schema=CORPUS.schema), file)
    return folder


@pytest.fixture(autouse=True)
def working_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def run_file(place: Path, modules: list[str], model: str = "model", source: str = "precomputed:made") -> RunConfig:
    subject = {
        "model": str(place / model),
        "modules": modules,
        "black_boxes": {"length": {"call": "of_length:length", "window": 2}},
        "precomputed": {"made": str(place / "made")},
    }
    run = {"name": "run", "folder": str(place)}
    return parse_config({"run": run, "subject": subject, "corpus": {"source": source}}, "test.toml", SECTIONS)


def received(config: RunConfig, modules: list[str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    batch = TokenBatch(IDS[::-1].copy(), np.full(4, 8), np.arange(4))
    open_source(config, modules).run(batch, lambda name, values: found.update({name: values.clone()}))
    return found


def test_each_module_is_received_as_from_its_source_alone(place: Path) -> None:
    config = run_file(place, ALL)
    together = received(config, ALL)
    assert set(together) == set(ALL)
    for name in ALL:
        np.testing.assert_array_equal(together[name], received(config, [name])[name], err_msg=name)
    np.testing.assert_array_equal(together["precomputed:made"], VALUES[::-1])
    assert together["layers.1.mlp"].shape == (4, 8, 24)


def recorded(source: ActivationSource) -> dict[str, UnitSums]:
    """The sums over all rows."""
    recorder = Recorder(source.modules, Record(batch_size=2), TokenTable(np.arange(300), 1), 8)
    scan(source, recorder, [(number, ids.tolist()) for number, ids in enumerate(IDS[::-1])], 2)
    return {module: state.sums() for module, state in recorder.accumulators.items()}


@pytest.mark.slow
def test_modules_are_recorded_together_as_each_alone(place: Path) -> None:
    config = run_file(place, ALL)
    together = recorded(open_source(config, ALL))
    assert set(together) == set(ALL)
    for name in ALL:
        alone = recorded(open_source(config, [name]))
        np.testing.assert_array_equal(together[name].power_sums, alone[name].power_sums)
        np.testing.assert_array_equal(together[name].top["+"].values, alone[name].top["+"].values)


def test_modules_keep_the_order_of_the_run_file(place: Path) -> None:
    config = run_file(place, ALL)
    described = describe_modules(config)
    assert list(described) == ALL
    assert list(open_source(config, ALL).modules) == ALL
    assert described["precomputed:made"] == ModuleUnits(3, signed=False)
    assert described["black_box:length"] == ModuleUnits(1)
    assert {name: units.width for name, units in described.items()} == dict(zip(ALL, [3, 24, 1, 24], strict=True))


def test_the_model_is_not_loaded_for_functions_and_folders(place: Path) -> None:
    modules = ["precomputed:made", "black_box:length"]
    config = run_file(place, modules, model="tokenizer")
    assert set(received(config, modules)) == set(modules)
    SCAN.check(config)
    with pytest.raises(UserError, match="cannot be loaded"):
        open_source(config, ["layers.0.mlp"])


def test_the_model_counts_only_where_it_is_recorded(place: Path) -> None:
    without = [SCAN.settings(run_file(place, ["precomputed:made"], model)) for model in ("model", "tokenizer")]
    assert without[0] == without[1]
    within = [SCAN.settings(run_file(place, ALL, model)) for model in ("model", "tokenizer")]
    assert within[0] != within[1]
    assert set(within[0]["sources"]) == {"precomputed:made", "black_box:length"}


@pytest.mark.parametrize(
    ("modules", "source", "says"),
    [
        (["precomputed:made", "precomputed:made"], "precomputed:made", "names precomputed:made more than once"),
        (["precomputed:other"], "precomputed:made", "subject.precomputed does not describe"),
        (["black_box:other"], "precomputed:made", "subject.black_boxes does not describe"),
        (["layers.9.mlp"], "precomputed:made", "has 2 layers"),
        (["precomputed:made"], "texts.txt", 'write corpus.source = "precomputed:made"'),
    ],
)
def test_modules_that_cannot_be_recorded_are_told_beforehand(
    place: Path, modules: list[str], source: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        check_sources(run_file(place, modules, source=source))


def test_a_function_that_fails_is_told_before_anything_is_recorded(place: Path) -> None:
    config = run_file(place, ["black_box:length"])
    bad = config.subject.black_boxes["length"].model_copy(update={"call": "of_length:missing"})
    subject = config.subject.model_copy(update={"black_boxes": {"length": bad}})
    with pytest.raises(UserError, match="has no 'missing'"):
        SCAN.check(config.model_copy(update={"subject": subject}))


def test_units_are_counted_and_checked_without_loading_anything(place: Path) -> None:
    config = run_file(place, ["precomputed:made", "black_box:length"], model="tokenizer")
    assert record_sizes(config).units == 4
    for units, says in [
        ({"precomputed:made": [3]}, "unit 3 of 'precomputed:made', which has units 0 to 2"),
        ({"precomputed:x": [0]}, "names 'precomputed:x'"),
    ]:
        listed = config[Explain].model_copy(update={"units": units})
        with pytest.raises(UserError, match=says):
            refuse_unknown_units(config.model_copy(update={"explain": listed}))
