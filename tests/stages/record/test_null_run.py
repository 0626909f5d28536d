"""A null run records activations that have nothing to do with the tokens they stand on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.schemas import DETAILS, EXEMPLARS, UNIT_TOKENS, UNITS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import SparseActivations, TokenBatch
from stages.record.null_run import given_to_others
from stages.record.recorded_batch import Batch, TokenTable, make_batch
from stages.settings import SECTIONS, Record
from stages.token_means import TOKEN_MEANS
from tests.stages.record.small_run import run_stages, small_config, small_subject

UNITS_HERE = 300
LENGTHS = np.array([9, 7, 9, 9, 5, 9, 9, 8, 9, 9, 6, 9])
STAGES = ("corpus", "record.scan", "record.merge", "record.weights", "record.details")


def batch(lengths: Any = LENGTHS) -> Batch:
    token_ids = np.arange(len(lengths) * 9).reshape(len(lengths), 9)
    return make_batch(
        TokenBatch(token_ids, lengths, np.arange(len(lengths))), Record(), TokenTable(np.zeros(0, int), 1)
    )


def telling() -> torch.Tensor:
    """(B, T, U) activations that tell their sequence, place and unit, none of them 0."""
    b, t, u = torch.meshgrid(*map(torch.arange, (len(LENGTHS), 9, UNITS_HERE)), indexing="ij")
    return 1.0 + b * 10 + t + u * 1000


def test_every_activation_comes_from_another_sequence_of_its_split_in_its_order_and_turned_round() -> None:
    here = batch()
    found = given_to_others(telling(), here, np.random.default_rng(0)).numpy()
    first_places = set()
    for b, length in enumerate(LENGTHS):
        for u in range(UNITS_HERE):
            unit, rest = np.divmod(found[b, 1:length, u] - 1, 1000)
            giver, places = np.divmod(rest, 10)
            assert set(unit) == {u}
            [one] = set(giver.astype(int))
            assert one != b
            assert here.splits[one] == here.splits[b]
            turned = (places[0] - 1 + np.arange(length - 1)) % (LENGTHS[one] - 1) + 1
            assert places.tolist() == turned.tolist()
            first_places.add(places[0])
    assert first_places == set(range(1, 9)), "a place of the sequence tells nothing"


def test_units_are_moved_apart_and_a_batch_with_the_same_draw_alike() -> None:
    moved = given_to_others(telling(), batch(), np.random.default_rng(0))
    again = given_to_others(telling(), batch(), np.random.default_rng(0))
    assert torch.equal(moved, again)
    givers = (moved[0, 1] - 1) % 1000 // 10
    assert len(set(givers.tolist())) > 1


def test_sparse_activations_move_as_dense_ones_do() -> None:
    dense = telling() * (torch.rand(len(LENGTHS), 9, UNITS_HERE, generator=torch.Generator().manual_seed(0)) < 0.1)
    positions, units = dense.flatten(0, 1).nonzero(as_tuple=True)
    sparse = SparseActivations((len(LENGTHS), 9, UNITS_HERE), positions, units, dense.flatten(0, 1)[positions, units])
    moved = given_to_others(sparse, batch(), np.random.default_rng(0))
    assert torch.equal(moved.of(torch.arange(UNITS_HERE)), given_to_others(dense, batch(), np.random.default_rng(0)))
    order = moved.positions * UNITS_HERE + moved.units
    assert bool((order.diff() > 0).all())


def test_a_sequence_alone_in_its_split_has_no_activations() -> None:
    found = given_to_others(telling()[:4], batch(LENGTHS[:4]), np.random.default_rng(0))
    assert torch.isnan(found[1, 1 : LENGTHS[1]]).all()
    assert torch.isnan(found[3, 1:]).all()
    assert torch.isfinite(found[0, 1:]).all()


def recorded(folder: Path, null: str, shard_sequences: int = 1024) -> Tables:
    record = {"batch_size": 8, "shard_sequences": shard_sequences}
    config = small_config(folder, record, {}, ("layers.0.mlp", "layers.1.attn"), f"{null}-{shard_sequences}")
    config = config.model_copy(update={"run": config.run.model_copy(update={"null": null})})
    run_stages(config, STAGES)
    return Tables(config.root)


def test_no_table_of_a_null_run_tells_the_truth(tmp_path: Path) -> None:
    """Rows do not depend on the shards, and of what is published nothing is as without `null`."""
    small_subject(tmp_path)
    true, null, pieces = recorded(tmp_path, "none"), recorded(tmp_path, "permuted"), recorded(tmp_path, "permuted", 8)
    for table in (UNITS, EXEMPLARS, TOKEN_MEANS):
        assert null.read(table).equals(pieces.read(table))
    assert null.read(UNIT_TOKENS).num_rows == null.read(DETAILS).num_rows == 0 < true.read(UNIT_TOKENS).num_rows
    keys = ["module", "index", "polarity", "seq_id"]
    kept = [tables.read(EXEMPLARS).to_pandas().query("band == 'random'").set_index(keys) for tables in (true, null)]
    both = kept[0].join(kept[1], lsuffix="_true", rsuffix="_null", how="inner")
    assert len(both) > 50
    same = [
        np.array_equal(one, other)
        for one, other in zip(both["activations_true"], both["activations_null"], strict=True)
    ]
    assert not any(same)
    found, other = (np.stack(tables.read(TOKEN_MEANS).to_pandas()["means"].tolist()) for tables in (true, null))
    assert not np.isclose(found, other).any(axis=None)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("record", {"negatives": 4}, "record.negatives is found by running the subject"),
        ("record", {"attribution": "occlusion"}, "record.attribution is found by running the subject"),
        ("record", {"batch_size": 4}, "set record.batch_size to 8 or more"),
        ("explain", {"output_tokens": True}, "explain.output_tokens come from the weights"),
        ("run", {"methods": ["sasc"]}, "SASC has sasc.nulls"),
    ],
)
def test_what_would_tell_a_null_run_the_truth_is_refused(section: str, values: dict[str, Any], words: str) -> None:
    file: dict[str, Any] = {
        "run": {"name": "n", "null": "permuted"},
        "subject": {"model": "m", "modules": ["layers.0.mlp"]},
        "corpus": {"source": "c.txt"},
    }
    file[section] = {**file.get(section, {}), **values}
    with pytest.raises(UserError, match=words):
        parse_config(file, "n.toml", SECTIONS)
