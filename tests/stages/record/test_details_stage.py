"""What else is found out about the exemplars of units to be explained, through the real stages."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.commands.status import status_table
from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.execution.survey import survey
from pipeline.schemas import CORPUS, DETAILS, EXEMPLARS
from pipeline.storage.tables import Tables
from pipeline.subjects.activation_sources import find_hook_points
from pipeline.subjects.attribution import Wanted, integrated_gradients, neutral_token
from pipeline.subjects.kinds.heads import head_movements
from pipeline.subjects.loading.model_loading import load_language_model
from stages import STAGES
from stages.evidence import RecordedUnits
from stages.explain.explain_units import EXPLAIN
from stages.record.details import DETAIL, attributions, check, plan
from stages.score.score_units import SCORE
from stages.settings import Explain
from stages.units import chosen_units
from tests.stages.record.small_run import CODER, MODULES, OTHERS, run_stages, small_config, small_subject, vowels

RECORDED = ["corpus", "record.scan", "record.merge"]
WHOLE = [*RECORDED, "record.weights", "record.details"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("details")
    small_subject(folder)
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> RunConfig:
    config = small_config(folder, {"attribution": "occlusion", "pairs": 6}, {})
    run_stages(config, WHOLE)
    return config


def rows_of(config: RunConfig) -> list[Row]:
    return Tables(config.root).read(DETAILS).to_pylist()


@pytest.fixture(scope="module")
def rows(config: RunConfig) -> list[Row]:
    return rows_of(config)


def token_ids(config: RunConfig) -> dict[int, list[int]]:
    return {row["seq_id"]: row["token_ids"] for row in Tables(config.root).read(CORPUS).to_pylist()}


def peaks(config: RunConfig) -> dict[tuple[str, int, str, int], int]:
    """Peaks of the `top` exemplars that the explainer may see, of the units to be explained."""
    chosen = chosen_units(config, Tables(config.root))
    return {
        (row["module"], row["index"], row["polarity"], row["seq_id"]): row["peak"]
        for row in Tables(config.root).read(EXEMPLARS).to_pylist()
        if row["band"] == "top" and row["split"] == "explain" and row["index"] in chosen[row["module"]]
    }


def key(row: Row) -> tuple[str, int, str, int]:
    return row["module"], row["index"], row["polarity"], row["seq_id"]


def test_the_rows_are_the_top_exemplars_of_the_explain_split_of_the_chosen_units(
    config: RunConfig, rows: list[Row]
) -> None:
    wanted = {found for found in peaks(config) if found[2] in config[Explain].polarities}
    assert {key(row) for row in rows} == wanted
    assert len(rows) == len(wanted) >= 2 * 4
    assert {row["module"] for row in rows} == set(MODULES)


def test_all_exemplars_are_looked_into_where_that_is_asked_for(
    folder: Path, config: RunConfig, rows: list[Row]
) -> None:
    every = small_config(folder, {"attribution": "occlusion", "pairs": 6, "details": "all"}, {}, name="every")
    run_stages(every, WHOLE)
    chosen = chosen_units(every, Tables(every.root))
    wanted = {
        key(row) for row in Tables(every.root).read(EXEMPLARS).to_pylist() if row["index"] in chosen[row["module"]]
    }
    found = rows_of(every)
    assert {key(row) for row in found} == {one for one in wanted if one[2] in every[Explain].polarities}
    assert len(found) == len({key(row) for row in found}) > 2 * len(rows)
    shown = {key(row): row for row in found}
    assert [shown[key(row)] for row in rows] == rows


@pytest.mark.parametrize("module", MODULES)
def test_attribution_is_what_the_activation_loses_with_a_token(module: str, config: RunConfig, rows: list[Row]) -> None:
    loaded = load_language_model(config.subject.model)
    base_model, site = (
        loaded.model.base_model,
        find_hook_points(loaded.model.base_model, [module], config.subject)[module],
    )
    neutral, texts, known = neutral_token(loaded.tokenizer), token_ids(config), peaks(config)
    seen: list[torch.Tensor] = []

    def measure(ids: list[int], row: Row) -> float:
        base_model(torch.tensor([ids]))
        read = seen.pop() if site.read is None else site.read(seen.pop())
        return float(read[0, known[key(row)], row["index"]])

    hook = (
        site.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        if site.side == "input"
        else site.module.register_forward_hook(lambda _, __, output: seen.append(output))
    )
    for row in [row for row in rows if row["module"] == module][:2]:
        ids = texts[row["seq_id"]]
        by_hand = [
            measure(ids, row) - measure([*ids[:place], neutral, *ids[place + 1 :]], row) for place in range(len(ids))
        ]
        np.testing.assert_allclose(row["attribution"], by_hand, rtol=1e-3, atol=1e-4)
        assert np.any(row["attribution"])
    hook.remove()


def test_heads_have_their_strongest_pairs_and_other_units_none(config: RunConfig, rows: list[Row]) -> None:
    base_model = load_language_model(config.subject.model).model.base_model
    site = find_hook_points(base_model, ["layers.1.attn"])["layers.1.attn"]
    texts = token_ids(config)
    for row in rows:
        if row["module"] != "layers.1.attn":
            assert row["pairs"] is None
            continue
        found = head_movements(base_model, site, {"input_ids": torch.tensor([texts[row["seq_id"]]])})
        assert found is not None
        sizes = found.pairs(0, row["index"])[1:, 1:]
        assert len(row["pairs"]) == 6
        assert [pair["value"] for pair in row["pairs"]] == pytest.approx(
            sizes.flatten().topk(6).values.tolist(), rel=1e-4
        )
        for pair in row["pairs"]:
            assert 1 <= pair["from"] <= pair["to"], "the first position does not count"
            assert pair["value"] == pytest.approx(float(sizes[pair["to"] - 1, pair["from"] - 1]), rel=1e-4)


def test_an_explainer_gets_them_by_unit_and_sequence(config: RunConfig, rows: list[Row]) -> None:
    indices = chosen_units(config, Tables(config.root))["layers.1.attn"]
    found = RecordedUnits(Context(config, EXPLAIN)).details("layers.1.attn", indices, "+")
    assert list(found) == indices
    for row in [row for row in rows if row["module"] == "layers.1.attn"]:
        detail = found[row["index"]][row["seq_id"]]
        assert detail.attribution is not None
        assert detail.attribution.tolist() == row["attribution"]
        pairs = [{"from": pair.source, "to": pair.target, "value": pair.value} for pair in detail.pairs or []]
        assert pairs == row["pairs"]
    assert RecordedUnits(Context(config, EXPLAIN)).details("layers.1.attn", indices, "-") == {
        index: {} for index in indices
    }
    with pytest.raises(PermissionError, match="explain"):
        RecordedUnits(Context(config, SCORE)).details("layers.1.attn", indices, "+")


def test_the_rows_do_not_depend_on_the_shards(folder: Path, config: RunConfig, rows: list[Row]) -> None:
    other = small_config(folder, {"attribution": "occlusion", "pairs": 6}, {"shard_units": 1}, name="other")
    run_stages(other, WHOLE)
    assert len(list(Tables(other.root).files(DETAILS))) > len(list(Tables(config.root).files(DETAILS)))
    assert sorted(rows_of(other), key=key) == sorted(rows, key=key)


@pytest.fixture(scope="module")
def others(folder: Path) -> RunConfig:
    """Units that are sparse, and units that are no part of a model."""
    config = small_config(folder, {"attribution": "occlusion"}, {"units": 6}, OTHERS, name="others")
    run_stages(config, WHOLE)
    return config


def latents(config: RunConfig, ids: list[int]) -> torch.Tensor:
    """(T, U) of the sparse autoencoder, by hand."""
    states: list[torch.Tensor] = []
    model = load_language_model(config.subject.model).model.base_model
    hook = model.layers[1].register_forward_hook(lambda _, __, output: states.append(output))
    model(torch.tensor([ids]))
    hook.remove()
    encoder, bias, centre = (torch.from_numpy(array).float() for array in (CODER.w_enc, CODER.b_enc, CODER.b_dec))
    return ((states[0][0] - centre) @ encoder + bias).relu()


def test_sparse_units_and_functions_of_texts_are_occluded(others: RunConfig) -> None:
    rows, known, texts = rows_of(others), peaks(others), token_ids(others)
    tokenizer = load_language_model(others.subject.model).tokenizer
    neutral = neutral_token(tokenizer)
    assert {row["module"] for row in rows} == set(OTHERS)
    for row in rows:
        ids, peak = texts[row["seq_id"]], known[key(row)]

        def measure(changed: list[int], row: Row = row, peak: int = peak) -> float:
            if row["module"] == "black_box:vowels":
                return float(vowels([tokenizer.decode(changed[max(peak - 1, 0) : peak + 1])])[0])
            return float(latents(others, changed)[peak, row["index"]])

        by_hand = [measure(ids) - measure([*ids[:place], neutral, *ids[place + 1 :]]) for place in range(len(ids))]
        np.testing.assert_allclose(row["attribution"], by_hand, rtol=1e-3, atol=1e-3)


def test_sparse_units_have_gradients(others: RunConfig) -> None:
    loaded, module = load_language_model(others.subject.model), OTHERS[0]
    site = find_hook_points(loaded.model.base_model, [module], others.subject)[module]
    assert site.sparse
    neutral, known, texts = neutral_token(loaded.tokenizer), peaks(others), token_ids(others)
    for row in [row for row in rows_of(others) if row["module"] == module][::4]:
        ids, one = texts[row["seq_id"]], Wanted(known[key(row)], row["index"])
        [found] = integrated_gradients(loaded.model.base_model, site, ids, [one], neutral, steps=128)
        there, baseline = latents(others, ids), latents(others, [neutral] * len(ids))
        difference = float(there[one.position, one.unit] - baseline[one.position, one.unit])
        assert found.sum() == pytest.approx(difference, abs=0.03 * max(float(np.abs(found).max()), abs(difference)))


def test_gradients_are_attributed_too(folder: Path) -> None:
    config = small_config(folder, {"attribution": "integrated_gradients"}, {"units": 1}, name="gradients")
    run_stages(config, WHOLE)
    rows, known = rows_of(config), peaks(config)
    assert {row["module"] for row in rows} == set(MODULES)
    for row in rows:
        values = np.array(row["attribution"])
        assert np.abs(values[: known[key(row)] + 1]).max() > 0
        assert not values[known[key(row)] + 1 :].any()


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_the_negative_polarity_has_the_opposite_sign(folder: Path, config: RunConfig, method: str) -> None:
    changed = small_config(folder, {"attribution": method}, {})
    rows = pd.DataFrame({"index": 3, "polarity": ["+", "-"], "seq_id": 0, "peak": 5})
    found = attributions(Context(changed, DETAIL), "layers.1.residual", rows, token_ids(config))
    assert found[0].any()
    np.testing.assert_array_equal(found[0], -found[1])


def test_where_nothing_is_asked_for_there_is_nothing_to_wait_for(folder: Path) -> None:
    none = small_config(folder, {}, {}, ["layers.0.mlp"], name="none")
    run_stages(none, WHOLE)
    assert plan(none, Tables(none.root)) == []
    found = survey(none, STAGES)
    assert found["record.details"].finished
    assert found["explain"].ready
    assert (
        DETAIL.settings(none)
        == DETAIL.settings(small_config(folder, {"pairs": 3}, {"units": 1}, ["layers.0.mlp"]))
        == {}
    )
    assert re.search(r"record.details\s+not asked for", status_table(none, STAGES))
    assert RecordedUnits(Context(none, EXPLAIN)).details("layers.0.mlp", [1], "+") == {1: {}}


def test_heads_alone_are_looked_into_where_no_attribution_is_asked_for(folder: Path) -> None:
    config = small_config(folder, {}, {}, name="heads")
    run_stages(config, WHOLE)
    rows = rows_of(config)
    assert {row["module"] for row in rows} == {"layers.1.attn"}
    assert all(row["attribution"] is None and row["pairs"] for row in rows)


def test_a_gradient_of_a_function_of_texts_is_refused(folder: Path) -> None:
    asked = small_config(folder, {"attribution": "integrated_gradients"}, {}, ["layers.0.mlp", "black_box:vowels"])
    with pytest.raises(UserError, match='black_box:vowels is a function without gradients; write "occlusion"'):
        check(asked)


def test_both_stages_are_run_by_the_command_record() -> None:
    names = list(STAGES)
    assert names.index("record.merge") < names.index("record.weights") < names.index("record.details")
    assert names.index("record.details") < names.index("explain")
    assert isinstance(EXPLAIN.reads, tuple)
    assert {"record.weights", "record.details"} <= set(EXPLAIN.reads)
