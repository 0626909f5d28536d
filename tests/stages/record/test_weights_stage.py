"""Tokens read off the weights, from the run file to the table."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.commands.status import status_table
from pipeline.config import RunConfig
from pipeline.execution.stage import Context
from pipeline.execution.survey import survey
from pipeline.schemas import UNIT_TOKENS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import load_language_model
from stages import STAGES
from stages.record.weights import WEIGHTS, ends, nearest_units, plan
from tests.stages.record.small_run import CODER, MODULES, PROBES, run_stages, small_config, small_subject

COUNT = 5


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("weights")
    small_subject(folder)
    config = small_config(folder, {"weight_tokens": COUNT}, {})
    run_stages(config, ["record.weights"])
    return config


@pytest.fixture(scope="module")
def rows(config: RunConfig) -> list[dict[str, Any]]:
    return Tables(config.root).read(UNIT_TOKENS).to_pylist()


def of(rows: list[dict[str, Any]], module: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["module"] == module]


def check(listed: list[dict[str, Any]], logits: torch.Tensor, *, largest: bool) -> None:
    """A list against a sort of all tokens but the two special ones."""
    order = logits.argsort(descending=largest).tolist()
    wanted = [token for token in order if token not in (0, 1)][:COUNT]
    assert [entry["token_id"] for entry in listed] == wanted
    np.testing.assert_allclose([entry["value"] for entry in listed], logits[wanted], rtol=1e-3, atol=1e-4)


def test_nearest_units_are_those_with_the_largest_cosine_and_none_of_a_zero_vector() -> None:
    vectors = torch.randn(600, 5, generator=torch.Generator().manual_seed(0))
    vectors[7], vectors[9] = 0, torch.nan
    found = nearest_units(vectors).to_pylist()
    assert found[7] is None
    assert found[9] is None
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    for index in (0, 300, 599):
        cosines = (unit @ unit[index]).nan_to_num(-2)
        cosines[index] = -2
        order = cosines.argsort(descending=True)[:8].tolist()
        assert [entry["index"] for entry in found[index]] == order
        np.testing.assert_allclose([entry["value"] for entry in found[index]], cosines[order], rtol=1e-5)


def test_neurons_are_near_to_those_that_write_alike(config: RunConfig, rows: list[dict[str, Any]]) -> None:
    model = load_language_model(config.subject.model).model
    writes = model.get_submodule("model.layers.0.mlp.down_proj").weight.T
    unit = torch.nn.functional.normalize(writes, dim=1)
    own = of(rows, "layers.0.mlp")
    cosines = unit @ unit.T - 3 * torch.eye(len(unit))
    assert [row["nearest"][0]["index"] for row in own] == cosines.argmax(dim=1).tolist()
    assert {entry["value"] > 0 for row in own for entry in row["nearest"]} == {True}
    assert {row["nearest"] for row in of(rows, "layers.1.residual")} == {None}


def test_every_unit_has_a_row_in_the_order_of_the_run_file(rows: list[dict[str, Any]]) -> None:
    widths = dict(zip(MODULES, (24, 2, 16, 3), strict=True))
    assert [(row["module"], row["index"]) for row in rows] == [
        (m, u) for m, width in widths.items() for u in range(width)
    ]


def test_neurons_favour_and_answer_to_the_tokens_that_the_weights_say(
    config: RunConfig, rows: list[dict[str, Any]]
) -> None:
    model = load_language_model(config.subject.model).model
    unembed, mlp = model.lm_head.weight, model.model.layers[0].mlp
    read = model.model.layers[0].post_attention_layernorm(model.model.embed_tokens.weight)
    for row in of(rows, "layers.0.mlp"):
        written = mlp.down_proj.weight[:, row["index"]]
        logits = unembed @ model.model.norm(written * 1e3)
        check(row["promoted"], logits, largest=True)
        check(row["suppressed"], logits, largest=False)
        check(row["input_tokens"], read @ mlp.gate_proj.weight[row["index"]], largest=True)


def test_directions_and_dimensions_are_projected_as_they_are(config: RunConfig, rows: list[dict[str, Any]]) -> None:
    model = load_language_model(config.subject.model).model
    probes = torch.from_numpy(PROBES / np.linalg.norm(PROBES, axis=1, keepdims=True))
    for module, vectors in (("layers.0.directions:probes", probes), ("layers.1.residual", torch.eye(16))):
        for row, vector in zip(of(rows, module), vectors, strict=True):
            check(row["promoted"], model.lm_head.weight @ model.model.norm(vector * 1e3), largest=True)
            check(row["input_tokens"], model.model.embed_tokens.weight @ vector, largest=True)


def test_a_sparse_coder_writes_its_decoder_and_reads_its_encoder(config: RunConfig) -> None:
    coder = small_config(Path(config.run.folder), {"weight_tokens": COUNT}, {}, ["layers.1.sae:coder"], name="coder")
    run_stages(coder, ["record.weights"])
    model = load_language_model(config.subject.model).model
    encoder, decoder = torch.from_numpy(CODER.w_enc).float(), torch.from_numpy(CODER.w_dec).float()
    rows = Tables(coder.root).read(UNIT_TOKENS).to_pylist()
    assert len(rows) == 24
    for row in rows:
        check(row["promoted"], model.lm_head.weight @ model.model.norm(decoder[row["index"]] * 1e3), largest=True)
        check(row["input_tokens"], model.model.embed_tokens.weight @ encoder[:, row["index"]], largest=True)


def test_a_changed_file_of_directions_is_another_input(config: RunConfig, tmp_path: Path) -> None:
    small_subject(tmp_path)
    other = small_config(tmp_path, {"weight_tokens": COUNT}, {})
    before = WEIGHTS.settings(other)["sources"]
    np.save(tmp_path / "probes.npy", -PROBES)
    assert WEIGHTS.settings(other)["sources"] != before


def test_the_text_of_a_token_is_its_own(config: RunConfig, rows: list[dict[str, Any]]) -> None:
    tokenizer = load_language_model(config.subject.model).tokenizer
    for entry in rows[0]["promoted"]:
        assert entry["token"] == tokenizer.decode([entry["token_id"]])


def test_heads_have_no_vectors_and_nulls(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "layers.1.attn"):
        assert (row["promoted"], row["suppressed"], row["input_tokens"]) == (None, None, None)


def test_no_tokens_are_an_empty_table_that_nothing_waits_for(config: RunConfig) -> None:
    none = small_config(Path(config.run.folder), {"weight_tokens": 0}, {}, name="none")
    assert plan(none, Tables(none.root)) == []
    assert survey(none, STAGES)["record.weights"].finished
    assert Tables(none.root).read(UNIT_TOKENS).num_rows == 0
    assert re.search(r"record.weights\s+not asked for", status_table(none, STAGES))


def test_what_is_no_part_of_the_model_has_no_rows(config: RunConfig) -> None:
    modules = ["black_box:vowels", "layers.0.mlp", "precomputed:mine"]
    mixed = small_config(Path(config.run.folder), {}, {}, modules)
    assert [shard.key for shard in plan(mixed, Tables(mixed.root))] == [{"module": "layers.0.mlp"}]


def test_the_number_of_tokens_and_the_modules_identify_the_rows(config: RunConfig) -> None:
    folder = Path(config.run.folder)
    same = small_config(folder, {"weight_tokens": COUNT, "top_tokens": 3}, {"units": 1})
    assert WEIGHTS.settings(same) == WEIGHTS.settings(config)
    for other in (small_config(folder, {}, {}), small_config(folder, {"weight_tokens": COUNT}, {}, ["layers.0.mlp"])):
        assert WEIGHTS.settings(other) != WEIGHTS.settings(config)


def texts(ids: set[int]) -> dict[int, str]:
    return {token_id: str(token_id) for token_id in ids}


def listed(lists: Any) -> list[list[tuple[int, float]] | None]:
    """Token ids and values of lists, whose texts are right."""
    found = lists.to_pylist()
    assert all(entry["token"] == str(entry["token_id"]) for entries in found for entry in entries or [])
    return [entries and [(entry["token_id"], entry["value"]) for entry in entries] for entries in found]


@pytest.mark.parametrize("blocks", [1, 300])
def test_ends_are_those_of_a_sort_with_ties_by_id(blocks: int) -> None:
    generator = torch.Generator().manual_seed(blocks)
    vectors = torch.randint(-2, 3, (blocks, 4), generator=generator).float()
    vectors[0] = torch.tensor([1.0, -1.0, 0.0, 2.0])
    tokens = torch.randint(-20, 21, (60, 4), generator=generator).float()
    known = set(range(3, 55))
    most, least = map(listed, ends(vectors, tokens, texts(known), 60))
    for vector, high, low in zip(vectors, most, least, strict=True):
        if not vector.any():
            assert high is None
            assert low is None
            continue
        products = [(token, float(tokens[token] @ vector)) for token in sorted(known)]
        assert high == sorted(products, key=lambda pair: -pair[1])
        assert low == sorted(products, key=lambda pair: pair[1])
    shorter, _ = ends(vectors[:1], tokens, texts(known), 2)
    assert [value for _, value in listed(shorter)[0] or []] == [value for _, value in (most[0] or [])[:2]]


def test_a_vector_that_is_zero_or_not_finite_says_nothing() -> None:
    vectors = torch.tensor([[0.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0], [1.0, 0.0]])
    most, _ = ends(vectors, torch.eye(2), texts({0, 1}), 1)
    assert listed(most) == [None, None, None, [(0, 1.0)]]


def test_a_shard_is_read_through_a_context_alone(config: RunConfig) -> None:
    [first, *_] = plan(config, Tables(config.root))
    made = WEIGHTS.process(first, Context(config, WEIGHTS))
    assert isinstance(made, dict)
    assert made["unit_tokens"].num_rows == 24
