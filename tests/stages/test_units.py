"""Units are drawn by the seed and not picked."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.schemas import UNITS
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.settings import SECTIONS
from stages.units import chosen_units, unit_shards


def config_of(folder: Path, units: object, seed: int = 0) -> RunConfig:
    return parse_config(
        {
            "run": {"name": "r", "folder": str(folder), "seed": seed},
            "subject": {"model": "m", "modules": ["layers.1.mlp", "layers.0.mlp"]},
            "corpus": {"source": "c.txt"},
            "explain": {"units": units},
        },
        "test",
        SECTIONS,
    )


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    found = Tables(tmp_path / "r")
    rows = [{"module": f"layers.{m}.mlp", "index": i} for m in (0, 1) for i in range(200)]
    table = pa.Table.from_pylist(rows, schema=UNITS.schema)
    publish(found.file(UNITS, "part-00000"), table, UNITS, {})
    return found


def test_all_means_all(tmp_path: Path, tables: Tables) -> None:
    assert chosen_units(config_of(tmp_path, "all"), tables) == {
        m: list(range(200)) for m in ("layers.1.mlp", "layers.0.mlp")
    }


def test_a_number_is_drawn_from_each_module_by_the_seed(tmp_path: Path, tables: Tables) -> None:
    first, again, other = (chosen_units(config_of(tmp_path, 24, seed), tables) for seed in (0, 0, 1))
    assert first == again != other
    assert first["layers.0.mlp"] != first["layers.1.mlp"]
    assert all(len(set(found)) == 24 and found == sorted(found) for found in first.values())


def test_a_larger_draw_contains_the_smaller_one(tmp_path: Path, tables: Tables) -> None:
    small, large = (set(chosen_units(config_of(tmp_path, n), tables)["layers.0.mlp"]) for n in (10, 30))
    assert small < large


def test_a_number_beyond_the_module_is_all_of_it(tmp_path: Path, tables: Tables) -> None:
    assert len(chosen_units(config_of(tmp_path, 500), tables)["layers.0.mlp"]) == 200


def test_listed_units_are_taken_once_in_order(tmp_path: Path, tables: Tables) -> None:
    assert chosen_units(config_of(tmp_path, {"layers.0.mlp": [5, 3, 5]}), tables) == {"layers.0.mlp": [3, 5]}


def test_shards_cover_every_chosen_unit_once(tmp_path: Path, tables: Tables) -> None:
    config = config_of(tmp_path, 24)
    shards = unit_shards(config, tables, 10)
    covered = [(shard.key["module"], index) for shard in shards for index in shard.key["indices"]]
    assert covered == [(module, index) for module, found in chosen_units(config, tables).items() for index in found]
    assert [len(shard.key["indices"]) for shard in shards] == [10, 10, 4, 10, 10, 4]
    assert [shard.name for shard in shards] == [f"part-{n:05d}" for n in range(6)]
