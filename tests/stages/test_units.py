"""Units are drawn by the seed and not picked."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.schemas import UNITS
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages.settings import SECTIONS
from stages.units import chosen_units, draw, unit_shards


def config_of(folder: Path, units: object, seed: int = 0, **explain: object) -> RunConfig:
    return parse_config(
        {
            "run": {"name": "r", "folder": str(folder), "seed": seed},
            "subject": {"model": "m", "modules": ["layers.1.mlp", "layers.0.mlp"]},
            "corpus": {"source": "c.txt"},
            "explain": {"units": units, **explain},
        },
        "test",
        SECTIONS,
    )


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    found = Tables(tmp_path / "r")
    write(found, [{"module": f"layers.{m}.mlp", "index": i} for m in (0, 1) for i in range(200)])
    return found


def write(tables: Tables, rows: list[dict[str, object]]) -> None:
    publish(tables.file(UNITS, "part-00000"), pa.Table.from_pylist(rows, schema=UNITS.schema), UNITS, {})


def test_all_means_all(tmp_path: Path, tables: Tables) -> None:
    assert chosen_units(config_of(tmp_path, "all"), tables) == {
        m: list(range(200)) for m in ("layers.1.mlp", "layers.0.mlp")
    }


def test_a_number_is_drawn_from_each_module_by_the_seed(tmp_path: Path, tables: Tables) -> None:
    first, again, other = (chosen_units(config_of(tmp_path, 24, seed), tables) for seed in (0, 0, 1))
    assert first == again != other
    assert first["layers.0.mlp"] != first["layers.1.mlp"]
    assert all(len(set(found)) == 24 and found == sorted(found) for found in first.values())


def test_units_stay_the_same_under_another_seed_where_they_have_one_of_their_own(
    tmp_path: Path, tables: Tables
) -> None:
    first, other = config_of(tmp_path, 24, 3), config_of(tmp_path, 24, 8)
    held = other.model_copy(update={"run": other.run.model_copy(update={"units_seed": 3})})
    assert chosen_units(held, tables) == chosen_units(first, tables) != chosen_units(other, tables)


def test_a_larger_draw_contains_the_smaller_one(tmp_path: Path, tables: Tables) -> None:
    small, large = (set(chosen_units(config_of(tmp_path, n), tables)["layers.0.mlp"]) for n in (10, 30))
    assert small < large


def test_a_number_beyond_the_module_is_all_of_it(tmp_path: Path, tables: Tables) -> None:
    assert len(chosen_units(config_of(tmp_path, 500), tables)["layers.0.mlp"]) == 200


@pytest.fixture
def recorded(tmp_path: Path) -> Tables:
    """Two modules in which every third unit never fires, and fires the more the higher its index; one unit is never negative."""
    found = Tables(tmp_path / "r")
    write(found, [
        {"module": f"layers.{m}.mlp", "index": i, "density": 0.0 if i % 3 == 0 else i / 300, "min": 0.0 if i == 1 else -1.0}
        for m in (0, 1) for i in range(200)
    ])  # fmt: skip
    return found


def test_units_are_drawn_among_those_that_fire_and_otherwise_as_if_all_did(tmp_path: Path, recorded: Tables) -> None:
    config = config_of(tmp_path, 40)
    every = draw(0, "layers.0.mlp").permutation(200).tolist()
    live = [index for index in every if index % 3]
    assert chosen_units(config, recorded)["layers.0.mlp"] == sorted(live[:40])
    assert set(chosen_units(config_of(tmp_path, 500), recorded)["layers.0.mlp"]) == set(live)


def test_a_draw_may_have_bounds_of_density(tmp_path: Path, recorded: Tables) -> None:
    config = config_of(tmp_path, {"number": 500, "min_density": 0.1, "max_density": 0.5})
    assert chosen_units(config, recorded)["layers.1.mlp"] == [index for index in range(30, 151) if index % 3]
    few = config_of(tmp_path, {"number": 5, "min_density": 0.1})
    assert len(chosen_units(few, recorded)["layers.1.mlp"]) == 5


def test_units_of_the_negative_side_alone_are_those_that_are_ever_negative(tmp_path: Path, recorded: Tables) -> None:
    config = config_of(tmp_path, 500, polarities=["-"])
    assert chosen_units(config, recorded)["layers.0.mlp"] == [index for index in range(200) if index != 1]


def test_where_no_unit_fires_all_are_drawn_from_and_their_rows_say_so(tmp_path: Path, recorded: Tables) -> None:
    write(recorded, [{"module": f"layers.{m}.mlp", "index": i, "density": 0.0} for m in (0, 1) for i in range(9)])
    assert len(chosen_units(config_of(tmp_path, 5), recorded)["layers.0.mlp"]) == 5
    with pytest.raises(UserError, match=r"'min_density': 0.001.*no unit fires on such a share.*widen"):
        chosen_units(config_of(tmp_path, {"number": 5, "min_density": 0.001}), recorded)


@pytest.mark.parametrize(
    ("units", "told"),
    [
        ({"number": 5, "min_densty": 0.1}, "unknown key 'explain.units.min_densty'; did you mean 'min_density'"),
        ({"number": 0}, "explain.units.number = 0"),
        ({"min_density": 0.1}, "missing key 'explain.units.number'"),
        ({"layers.0.mlp": [-1]}, "greater than or equal to 0"),
        (0, "explain.units = 0"),
        (1.5, "explain.units = 1.5"),
        ("some", "explain.units = 'some'"),
    ],
)
def test_what_is_no_way_to_name_units_is_told(tmp_path: Path, units: object, told: str) -> None:
    with pytest.raises(UserError) as caught:
        config_of(tmp_path, units)
    assert told in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_listed_units_are_taken_once_in_order(tmp_path: Path, tables: Tables) -> None:
    assert chosen_units(config_of(tmp_path, {"layers.0.mlp": [5, 3, 5]}), tables) == {"layers.0.mlp": [3, 5]}


def test_shards_cover_every_chosen_unit_once(tmp_path: Path, tables: Tables) -> None:
    config = config_of(tmp_path, 24)
    shards = unit_shards(config, tables, 10)
    covered = [(shard.key["module"], index) for shard in shards for index in shard.key["indices"]]
    assert covered == [(module, index) for module, found in chosen_units(config, tables).items() for index in found]
    assert [len(shard.key["indices"]) for shard in shards] == [10, 10, 4, 10, 10, 4]
    assert [shard.name for shard in shards] == [f"part-{n:05d}" for n in range(6)]
