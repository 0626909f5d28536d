"""Merging partials: both polarities, each neighbourhood once, whatever the parts; and the files in between."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.schemas import EXEMPLARS
from pipeline.storage.footers import footer
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables, prune
from stages.record.merge import merge
from stages.record.partial_tables import PARTIALS, UNITS_AT_ONCE
from stages.record.partials import Partials
from stages.settings import PerSplit
from tests.stages.record.sums_twin import MODULE, SIGN, World, make_world

Rows = list[dict[str, Any]]


def parts_of(world: World, size: int) -> list[dict[str, list[pa.Table]]]:
    total = len(world.activations)
    return [world.partial(range(start, min(start + size, total))) for start in range(0, total, size)]


def merged(world: World, size: int = 1000, order: int = 1) -> dict[str, Rows]:
    partials = [
        {table.name: pa.concat_tables([table.schema.empty_table(), *part[table.name]]) for table in PARTIALS}
        for part in parts_of(world, size)[::order]
    ]
    found = merge(partials, MODULE, 0, world.width, world.config, {})
    return {name: rows.to_pylist() for name, rows in found.items()}


def check(world: World, found: dict[str, Rows]) -> None:
    for unit, about in enumerate(found["units"]):
        rows = [row for row in found["exemplars"] if row["index"] == unit]
        expected: list[tuple[str, str, str, int, int]] = []
        for polarity, name in (("+", "quantile_boundaries"), ("-", "quantile_boundaries_negative")):
            if polarity in world.keys and polarity in world.config.polarities:
                boundaries = [SIGN[polarity] * boundary for boundary in about[name]]
                expected += [(polarity, *row) for row in world.expected(unit, polarity, boundaries)]
        assert [(r["polarity"], r["band"], r["split"], r["rank"], r["seq_id"]) for r in rows] == expected
        for row in rows:
            true = world.activations[row["seq_id"]][:, unit]
            assert row["activations"] == [float(x) if np.isfinite(x) else None for x in true]
            assert row["max_activation"] == SIGN[row["polarity"]] * world.value(row["seq_id"], unit, row["polarity"])
            assert row["peak"] == row["activations"].index(row["max_activation"])


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("kind", [pytest.param("random", marks=pytest.mark.slow), "tied"])
def test_exemplars_of_both_polarities_equal_brute_force_however_the_corpus_is_cut(kind: str, distinct: bool) -> None:
    world = make_world(kind, distinct=distinct)
    whole = merged(world)
    check(world, whole)
    assert {row["polarity"] for row in whole["exemplars"]} == {"+", "-"}
    for size, order in ((4, 1), (4, -1), (7, -1), (20, 1)):
        assert merged(world, size, order)["exemplars"] == whole["exemplars"]


def test_a_text_that_comes_again_and_again_takes_one_place_of_the_top() -> None:
    world = make_world(sequences=40)
    for seq_id in range(0, 40, 4):
        world.activations[seq_id][1] = 50.0 + seq_id
        world.keys["+"][seq_id] = 99
    top = [row for row in merged(world, 7)["exemplars"] if (row["polarity"], row["band"]) == ("+", "top")]
    assert {row["max_activation"] > 50 for row in top if row["rank"] == 0 and row["split"] == "explain"} == {True}
    assert not any(row["max_activation"] > 50 for row in top if row["rank"] > 0)


def test_the_negative_polarity_is_the_positive_one_of_the_mirrored_unit() -> None:
    world = make_world(seed=3)
    mirror = World(
        [-values for values in world.activations], {"+": world.keys["-"], "-": world.keys["+"]}, world.config
    )
    found, mirrored = merged(world), merged(mirror)
    names = ("index", "band", "split", "rank", "seq_id", "peak")
    for one, other in (("+", "-"), ("-", "+")):
        left = [row for row in found["exemplars"] if row["polarity"] == one]
        right = [row for row in mirrored["exemplars"] if row["polarity"] == other]
        assert [[row[name] for name in names] for row in left] == [[row[name] for name in names] for row in right]
        assert [row["max_activation"] for row in left] == [-row["max_activation"] for row in right]


def test_a_module_that_is_never_negative_has_no_negative_rows() -> None:
    world = make_world(polarities="+")
    found = merged(world, 7)
    check(world, found)
    assert {row["polarity"] for row in found["exemplars"]} == {"+"}
    assert all(row["density_negative"] is row["quantile_boundaries_negative"] is None for row in found["units"])


@pytest.mark.parametrize("polarity", ["+", "-"])
def test_one_polarity_alone_can_be_asked_for(polarity: str) -> None:
    world = make_world(polarities=polarity)
    world = World(world.activations, world.keys, world.config.model_copy(update={"polarities": [polarity]}))
    found = merged(world, 9)
    check(world, found)
    assert {row["polarity"] for row in found["exemplars"]} == {polarity}


def test_what_is_not_finite_is_null_and_never_a_peak() -> None:
    world = make_world()
    for seq_id, value in ((3, np.inf), (4, -np.inf)):
        world.activations[seq_id][1, 2] = value
    world.activations[5][:, 1] = np.inf
    found = merged(world, 11)
    check(world, found)
    assert not any(row["seq_id"] == 5 for row in found["exemplars"] if row["index"] == 1)


@pytest.mark.parametrize("threshold", [0.0, 1.5, -0.8])
def test_the_share_below_minus_the_threshold_is_right_within_a_bin(threshold: float) -> None:
    world = make_world(sequences=200, density_threshold=threshold)
    for row in merged(world)["units"]:
        values = np.concatenate([sequence[:, row["index"]] for sequence in world.activations])
        values = values[np.isfinite(values)]
        assert row["density_negative"] == pytest.approx(
            np.mean(values < -threshold), abs=1e-9 if not threshold else 0.02
        )
        assert row["density"] == np.mean(values > threshold)


def published(world: World, folder: Path, size: int) -> Tables:
    for number, part in enumerate(parts_of(world, size)):
        for table in PARTIALS:
            name = f"part-{number:05d}"
            path = Tables(folder).file(table, name)
            publish(path, iter(part[table.name]), table, {})
    return Tables(folder)


def test_any_range_of_units_is_read_from_the_files_of_the_partials(tmp_path: Path) -> None:
    world = make_world(width=150, sequences=12)
    partials = Partials(published(world, tmp_path, 5))
    whole = merged(world, 5)
    for start, stop in ((0, 150), (0, 64), (64, 128), (33, 70), (128, 150), (149, 150)):
        found = merge(partials.about(MODULE, start, stop), MODULE, start, stop, world.config, {})
        for name, rows in found.items():
            assert rows.to_pylist() == [row for row in whole[name] if start <= row["index"] < stop]


def test_two_partials_are_held_at_a_time_whatever_their_number(tmp_path: Path) -> None:
    tables = published(make_world(width=150, sequences=60), tmp_path, 6)
    whole = sum(table.nbytes for part in Partials(tables).about(MODULE, 0, 150) for table in part.values())
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in Partials(tables).about(MODULE, 0, 150))
    assert 0 < most < whole / 2


def test_partial_exemplars_are_made_a_bounded_number_of_units_at_a_time(tmp_path: Path) -> None:
    world = make_world(width=UNITS_AT_ONCE + 100, sequences=6)
    pieces = world.partial(range(6))["partial_exemplars"]
    spans = [(min(indices), max(indices)) for indices in (piece["index"].to_pylist() for piece in pieces)]
    assert spans == [(0, UNITS_AT_ONCE - 1), (UNITS_AT_ONCE, UNITS_AT_ONCE + 99)]


def test_a_record_can_do_without_uniform_sequences() -> None:
    none = PerSplit(explain=0, select=0, report=0)
    world = make_world(random=none, per_band=none)
    found = merged(world, 7)
    check(world, found)
    assert {row["band"] for row in found["exemplars"]} == {"top"}


def test_no_partial_gives_no_exemplars() -> None:
    found = merge([], MODULE, 0, 4, make_world().config, {})
    assert found["exemplars"].num_rows == 0
    assert found["exemplars"].schema == EXEMPLARS.schema


def test_partial_records_that_another_worker_empties_meanwhile_are_an_error_and_no_dead_units(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    for table in PARTIALS:
        publish(tables.file(table, "part-00000"), table.schema.empty_table(), table, footer({}, {}, 1.0))
    partials = Partials(tables)
    assert len(list(partials.about("layers.0.mlp", 0, 4))) == 1
    prune(tables, PARTIALS)
    with pytest.raises(RuntimeError, match="was replaced while it was read"):
        list(partials.about("layers.0.mlp", 0, 4))
