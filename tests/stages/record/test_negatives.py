"""Hard negatives: near to a unit's exemplars, low on the unit, and never from another split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.commands.status import status_table
from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from pipeline.execution.stage import Context
from pipeline.execution.survey import survey
from pipeline.schemas import EXEMPLARS, NEGATIVES
from pipeline.storage.footers import footer
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages import STAGES
from stages.evidence import SPLITS, RecordedUnits, split_of
from stages.record import likeness, negatives
from stages.record.negatives import KINDS
from stages.settings import SECTIONS, Explain
from stages.units import chosen_units
from tests.pipeline.subjects.conftest import save_tiny_llama
from tests.stages.record.negatives_twin import MODULES, OTHERS, POOL, WANTED, Twin

TEXT = "the red house and green door stood by blue water seven birds sang of river bank money lent to him"
STAGE_NAMES = ("corpus", "record.scan", "record.merge", "record.embed", "record.negatives")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and short texts."""
    folder = tmp_path_factory.mktemp("negatives")
    save_tiny_llama(folder / "model")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(TEXT.split(), size=generator.integers(20, 90))) for _ in range(60)]
    (folder / "texts.txt").write_text("\n\n".join(texts))
    return folder


@pytest.fixture(scope="module")
def small_pool() -> Iterator[None]:
    """Fewer sequences and units to look among than there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness, "POOL", POOL)
        patch.setattr(negatives, "REACH", 4 * POOL)
        patch.setattr(likeness, "OTHERS", OTHERS)
        yield


def run_file(folder: Path, name: str, **record: Any) -> RunConfig:
    few = {"explain": 4, "select": 2, "report": 3}
    sizes = {"batch_size": 16, "shard_sequences": 48, "negatives": sum(WANTED.values())}
    return parse_config(
        {
            "run": {"name": name, "folder": str(folder)},
            "subject": {"model": str(folder / "model"), "modules": MODULES},
            "corpus": {
                "source": str(folder / "texts.txt"), "seq_len": 16, "min_tokens": 5, "max_sequences": 150, "bos": "yes",
            },
            "record": {"top": few, "random": few, "skip_positions": 0, **sizes, **record},
            "explain": {"units": 6, "polarities": ["+", "-"]},
        },
        "test", SECTIONS)  # fmt: skip


def run(config: RunConfig) -> None:
    for name in STAGE_NAMES:
        if name == "record.embed":
            add_negative_polarity(config)
        progress = run_stage(STAGES[name], config, STAGES, show=False)
        assert progress.finished
        assert not progress.broken


def add_negative_polarity(config: RunConfig) -> None:
    """Where only large activations were recorded, the same sequences stand in for very negative ones."""
    tables = Tables(config.root)
    progress = survey(config, STAGES)["record.merge"]
    for shard in progress.shards:
        rows = tables.read(EXEMPLARS, shards=[shard.name]).to_pylist()
        if {row["polarity"] for row in rows} == {"+"}:
            for row in [row for row in rows if row["band"] == "top"]:
                lowest = min(row["activations"][1:])
                rows.append(row | {"polarity": "-", "max_activation": lowest})
            rows.sort(key=lambda row: row["index"])
            table = pa.Table.from_pylist(rows, schema=EXEMPLARS.schema)
            publish(tables.file(EXEMPLARS, shard.name), table, EXEMPLARS, footer(progress.inputs, shard.key, 0.0))


@pytest.fixture(scope="module")
def config(folder: Path, small_pool: None) -> RunConfig:
    """The run file of a run with hard negatives."""
    config = run_file(folder, "run")
    run(config)
    return config


def test_they_are_those_that_a_search_by_hand_finds(config: RunConfig) -> None:
    twin = Twin(config)
    tables = Tables(config.root)
    found = tables.read(NEGATIVES).to_pandas()
    units = chosen_units(config, tables)
    count = 0
    for module, indices in units.items():
        for index in indices:
            for polarity in "+-":
                for split in SPLITS:
                    wanted = twin.expected(module, index, polarity, split)
                    rows = found.query(
                        "module == @module and index == @index and polarity == @polarity and split == @split"
                    )
                    for kind in KINDS:
                        assert rows[rows["band"] == kind].sort_values("rank")["seq_id"].tolist() == wanted[kind]
                        count += len(wanted[kind])
    assert count == len(found)
    assert set(zip(found["polarity"], found["band"], found["split"], strict=True)) == {
        (polarity, kind, split) for polarity in "+-" for kind in KINDS for split in SPLITS
    }
    for row in found.to_dict("records"):
        by_hand = twin.activations[row["module"]][row["seq_id"]][:, row["index"]]
        np.testing.assert_allclose(row["activations"], by_hand, rtol=2**-11, atol=1e-6)
        assert np.isnan(row["activations"]).tolist() == [True] + [False] * (len(by_hand) - 1)
        directed = by_hand if row["polarity"] == "+" else -by_hand
        assert row["peak"] == np.nanargmax(directed)
        assert row["max_activation"] == pytest.approx(by_hand[row["peak"]], abs=1e-6)


def test_negatives_of_a_split_are_sequences_of_it_and_no_exemplars_of_the_unit(config: RunConfig) -> None:
    tables = Tables(config.root)
    found = tables.read(NEGATIVES).to_pandas()
    assert (found["seq_id"].map(split_of) == found["split"]).all()
    keys = ["module", "index", "polarity", "seq_id"]
    assert not found.duplicated(keys).any()
    top = tables.read(EXEMPLARS).to_pandas().query("band == 'top'")
    assert found.merge(top, on=keys).empty
    nulls = tables.read(NEGATIVES)["activations"].combine_chunks()
    assert nulls.flatten().null_count == len(found)


@pytest.mark.slow
def test_other_shards_give_the_same_rows(config: RunConfig, folder: Path) -> None:
    other = run_file(folder, "other", shard_units=5, shard_sequences=32)
    run(other)
    assert len(Tables(other.root).files(NEGATIVES)) > len(Tables(config.root).files(NEGATIVES))
    keys = [(name, "ascending") for name in ("module", "index", "polarity", "band", "split", "rank")]
    rows = [Tables(one.root).read(NEGATIVES).sort_by(keys) for one in (config, other)]
    assert rows[0].equals(rows[1])


def test_an_explainer_may_see_those_of_the_explain_split_when_it_asks_for_them(config: RunConfig) -> None:
    table = Tables(config.root).read(NEGATIVES).to_pandas().query("split == 'explain' and polarity == '+'")
    index = int(table.query("module == 'layers.1.mlp'")["index"].iloc[0])
    rows = table.query("module == 'layers.1.mlp' and index == @index")
    hard = config.model_copy(update={"explain": config[Explain].model_copy(update={"negatives": "hard"})})
    [without], [unit] = (
        RecordedUnits(Context(one, STAGES["explain"])).evidence("layers.1.mlp", [index]) for one in (config, hard)
    )
    assert without.negatives == []
    assert [(one.band, one.seq_id) for one in unit.negatives] == list(zip(rows["band"], rows["seq_id"], strict=True))
    assert [one.band for one in unit.negatives] == sorted((one.band for one in unit.negatives), reverse=True)
    assert all(np.isnan(one.activations[0]) for one in unit.negatives)
    with pytest.raises(PermissionError, match="report"):
        RecordedUnits(Context(hard, STAGES["explain"])).exemplars("layers.1.mlp", [index], ["report"], of=NEGATIVES)


def test_without_them_nothing_is_embedded_and_everything_goes_on(folder: Path, config: RunConfig) -> None:
    none = run_file(folder, "none", negatives=0)
    run(none)
    found = survey(none, STAGES)
    assert [(found[name].ready, found[name].shards, found[name].finished) for name in STAGE_NAMES[3:]] == [
        (True, [], True), (True, [], True),
    ]  # fmt: skip
    assert {"record.embed", "record.negatives"}.isdisjoint(
        name for name in STAGES["explain"].upstream(none) if not found[name].finished
    )
    assert "record.negatives" in status_table(none, STAGES)
    assert Tables(none.root).read(NEGATIVES).num_rows == 0
    assert RecordedUnits(Context(none, STAGES["explain"])).exemplars(
        "layers.0.mlp", [3], ["explain"], of=NEGATIVES
    ) == {3: []}


def test_a_changed_embedder_matters_only_where_there_are_negatives(folder: Path) -> None:
    for name in ("record.embed", "record.negatives"):
        settings = [STAGES[name].settings(run_file(folder, "x", negatives=count)) for count in (0, 1, 2)]
        assert settings[0] == {}
        assert (settings[1] == settings[2]) == (name == "record.embed")
