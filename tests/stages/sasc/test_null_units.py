"""Null units: random directions of the embedding space beside the units of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.black_boxes.random_directions import random_directions
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.execution.survey import survey
from pipeline.subjects.embedder import Embedder, load_embedder
from pipeline.subjects.text_functions import open_text_function
from stages import STAGES
from stages.methods import build_method
from stages.sasc import SUMMARISERS, SYNTHESIZERS, Sasc
from stages.sasc.ngram_scan import SCAN
from stages.sasc.sasc_tables import NULLS
from stages.sasc.sasc_units import with_nulls
from tests.stages.sasc.small_run import GOOD, run_file, run_ngrams, table

NULL = f"module == '{NULLS}'"
TEXTS = ["the lazy dog", "1984", "a red fox jumps over the dog"]


pytestmark = pytest.mark.usefixtures("in_place")


def test_directions_are_projections_whose_number_and_batch_change_nothing() -> None:
    few, many = random_directions(3, seed=4), random_directions(5, seed=4)
    assert np.array_equal(few(TEXTS), many(TEXTS)[:, :3])
    assert np.array_equal(few(TEXTS[:1])[0], few(TEXTS)[0])
    assert not np.allclose(few(TEXTS), random_directions(3, seed=5)(TEXTS))
    vectors = load_embedder().encode(TEXTS).astype(np.float64)
    weights = np.linalg.lstsq(vectors, many(TEXTS), rcond=None)[0]
    assert np.allclose(vectors @ weights, many(TEXTS))
    assert (abs(many(TEXTS)) < 0.5).all()


def test_null_units_are_all_there_whatever_units_are_asked_for(place: Path) -> None:
    root = run_ngrams(run_file(place, "asked", [GOOD], nulls=20, units={GOOD: [1]}, polarities=["-", "+"]))
    responses = table(root, "responses")
    assert responses.query(NULL)["index"].to_list() == list(range(20))
    assert set(responses.query(NULL)["polarity"]) == {"-"}  # a direction is as random as its opposite
    assert responses.query(f"not ({NULL})")[["index", "polarity"]].to_numpy().tolist() == [[1, "-"], [1, "+"]]
    assert (table(root, "ngrams").query(NULL).groupby("index").size() == 10).all()


@pytest.mark.slow
def test_their_rows_depend_neither_on_the_shards_nor_on_the_other_modules(place: Path) -> None:
    whole = run_ngrams(run_file(place, "whole", [GOOD], nulls=20))
    cut = run_ngrams(run_file(place, "cut", ["layers.0.mlp"], nulls=20, shard_ngrams=37))
    for name in ("responses", "ngrams"):
        one, other = (table(root, name).query(NULL).reset_index(drop=True) for root in (whole, cut))
        assert len(one) >= 20
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_device_reaches_every_embedder_and_no_fingerprint(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("pipeline.black_boxes.random_directions.load_embedder", keep(asked, load_embedder))
    monkeypatch.setattr("pipeline.subjects.embedder.load_embedder", keep(asked, load_embedder))
    monkeypatch.setattr("stages.sasc.texts_retrieved.corpus_passages", lambda context: ["the lazy dog"])
    configs = [run_file(place, "devices", [GOOD], nulls=20, device=device) for device in ("cpu", "auto")]
    for config in configs:
        asked.clear()
        open_text_function(with_nulls(config), NULLS, "max")
        context = Context(config, STAGES["synthesize"])
        build_method("embedded", SUMMARISERS, config[Sasc], None, context)
        build_method("retrieved", SYNTHESIZERS, context, None, context)
        assert asked == [(config[Sasc].embedder, config[Sasc].device)] * 3
    inputs = [{name: found.inputs for name, found in survey(config, STAGES).items()} for config in configs]
    assert inputs[0] == inputs[1]
    with pytest.raises(UserError, match="device = 'cuda:99', but this machine"):
        SCAN.check(run_file(place, "devices", [GOOD], nulls=20, device="cuda:99"))


def keep(asked: list[tuple[str, str]], load: Callable[..., Embedder]) -> Callable[..., Embedder]:
    """`load` that notes its arguments."""

    def loaded(spec: str, device: str) -> Embedder:
        asked.append((spec, device))
        return load(spec, device)

    return loaded


def test_none_are_made_where_none_are_wanted(place: Path) -> None:
    config = run_file(place, "none", [GOOD], nulls=0)
    assert with_nulls(config) is config


def test_too_few_for_a_p_value_and_a_function_of_their_name_are_refused(place: Path) -> None:
    with pytest.raises(UserError, match="nulls"):
        run_file(place, "few", [GOOD], nulls=10)
    config = run_file(place, "taken", [GOOD])
    box = config.subject.black_boxes["near"]
    subject = config.subject.model_copy(update={"black_boxes": {"counts": box, "null_directions": box}})
    with pytest.raises(UserError, match="null_directions"):
        SCAN.check(config.model_copy(update={"subject": subject}))
