"""Responses from the recorded sequences of each unit, against the recording read by hand; the model is never there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.runner import discard, run_stage
from pipeline.execution.survey import survey
from pipeline.storage.footers import fingerprint, read_footer
from stages import STAGES
from stages.evidence import Exemplar
from stages.sasc.ngram_scan import SCAN
from stages.sasc.readings import mean_responses
from stages.settings import Record
from tests.stages.sasc.small_run import BOTH, GOOD, occurrences, run_file, run_ngrams, table

DEAD = 7
"""A latent of the sparse coder that is never active."""
MODULES = ["layers.0.mlp", "layers.1.sae:small", "layers.0.directions:axes"]
UNIT = "module == @unit['module'] and index == @unit['index'] and polarity == @unit['polarity']"
FEW = {"explain": 3, "select": 2, "report": 2}
RECORD = {"top": FEW, "random": FEW}

pytestmark = pytest.mark.usefixtures("in_place")


@pytest.fixture(scope="module", autouse=True)
def _a_dead_latent(place: Path) -> None:
    weights = load_file(place / "coder" / "sae.safetensors")
    weights["encoder.bias"][DEAD] = -1e9
    save_file(weights, place / "coder" / "sae.safetensors")


def refuse_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no model can be loaded, and none that is loaded can be run."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a model was used")

    monkeypatch.setattr(hf.PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr(torch.nn.Module, "__call__", refuse)


def recorded_run(place: Path, name: str, modules: list[str], record: Any = None, **sasc: Any) -> RunConfig:
    return run_file(place, name, modules, RECORD | (record or {}), BOTH, reading="recorded", **sasc)


def record(config: RunConfig) -> None:
    for name in ("corpus", "record.scan", "record.merge"):
        run_stage(STAGES[name], config, STAGES, show=False)


def pooled_by_hand(values: npt.NDArray[np.float32], pool: str) -> float:
    return float({"max": values.max(), "mean": values.mean(), "last": values[-1]}[pool])


Places = dict[int, dict[int, list[list[int]]]]
"""The tokens of each occurrence, by ngram_id and seq_id."""


def all_places(root: Path, config: RunConfig) -> Places:
    rows, texts = table(root, "corpus").to_dict("records"), table(root, "_ngrams/list")["text"]
    return {
        number: {row["seq_id"]: occurrences(config, row, text) for row in rows} for number, text in enumerate(texts)
    }


def twin(places: Places, pool: str, rows: pd.DataFrame) -> dict[int, float]:
    """The mean response of a unit to each n-gram that stands in some of its exemplars, by ngram_id."""
    windows = rows.drop_duplicates("seq_id")
    found = {}
    for number, where in places.items():
        own = [
            pooled_by_hand(np.asarray(values, np.float32)[inside], pool)
            for seq_id, values in zip(windows["seq_id"], windows["activations"], strict=True)
            for inside in where[seq_id]
        ]
        if own:
            found[number] = float(np.mean(own))
    return found


def assert_same(ngrams: pd.DataFrame, unit: Mapping[Any, Any], wanted: dict[int, float], kept: int) -> None:
    """Whether the rows of a unit in one polarity are those of these responses."""
    values = np.asarray(list(wanted.values()))
    assert unit["n_ngrams"] == len(wanted)
    np.testing.assert_allclose([unit["mean"], unit["sigma"]], [values.mean(), values.std()], rtol=1e-5, atol=1e-9)
    found = ngrams.query(UNIT).sort_values("rank")
    assert len(found) == min(kept, len(wanted))
    np.testing.assert_allclose(found["response"], [wanted[number] for number in found["ngram_id"]], rtol=1e-5)
    strongest = np.sort(values)[::-1] if unit["polarity"] == "+" else np.sort(values)
    np.testing.assert_allclose(found["response"], strongest[:kept], rtol=1e-5)


@pytest.mark.parametrize("pool", ["max", *(pytest.param(pool, marks=pytest.mark.slow) for pool in ("mean", "last"))])
def test_responses_are_those_of_the_recorded_exemplars(place: Path, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recorded_run(place, f"hand-{pool}", MODULES, pool=pool, max_ngrams=40, kept=12)
    record(config)
    refuse_models(monkeypatch)
    root = run_ngrams(config)
    exemplars = table(root, "exemplars").query("split == 'explain'")
    assert exemplars.duplicated(["module", "index", "polarity", "seq_id"]).any(), "kept for two reasons, counted once"
    responses = table(root, "responses")
    assert len(responses) == 24 * 2 + 20 + 3 * 2
    assert responses["n_ngrams"].nunique() > 1, "units have n-grams of their own"
    places, ngrams = all_places(root, config), table(root, "ngrams")
    for unit in responses.to_dict("records"):
        if (unit["module"], unit["index"]) == ("layers.1.sae:small", DEAD):
            assert (unit["status"], unit["sigma"]) == ("dead", 0)
        else:
            assert unit["status"] == "ok"
            assert_same(ngrams, unit, twin(places, pool, exemplars.query(UNIT)), 12)


def test_the_other_readings_need_the_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_models(monkeypatch)
    for reading in ("alone", "in_context"):
        with pytest.raises(AssertionError, match=r"ngrams\.scan"):
            run_ngrams(run_file(place, f"with-{reading}", MODULES, reading=reading))


def test_ngrams_of_tokens_are_found_too(place: Path) -> None:
    config = recorded_run(place, "tokens", ["layers.0.mlp"], pieces="tokens", sizes=[1], units={"layers.0.mlp": [5]})
    root = run_ngrams(config)
    rows = table(root, "exemplars").query("split == 'explain' and polarity == '+' and index == 5")
    tokens = table(root, "corpus").set_index("seq_id")["tokens"]
    values: dict[str, list[float]] = {}
    for row in rows.drop_duplicates("seq_id").to_dict("records"):
        for token, value in list(zip(tokens[row["seq_id"]], row["activations"], strict=True))[1:]:
            values.setdefault(token, []).append(value)
    ngrams = table(root, "ngrams").query("polarity == '+'")
    assert len(ngrams) == 10
    wanted = [np.mean(values[text]) for text in ngrams["text"]]
    np.testing.assert_allclose(ngrams["response"], wanted, rtol=1e-5)


def test_black_boxes_in_the_run_are_asked_for_ngrams_as_texts(place: Path) -> None:
    one = run_ngrams(recorded_run(place, "boxes", ["layers.0.mlp", GOOD]))
    other = run_ngrams(run_file(place, "boxes-alone", [GOOD]))
    for name in ("responses", "ngrams"):
        own = table(one, name).query("module == @GOOD")
        pd.testing.assert_frame_equal(own.reset_index(drop=True), table(other, name), check_exact=True)


def test_an_ngram_on_a_token_without_an_activation_or_twice_kept_is_not_counted() -> None:
    values = np.asarray([np.nan, 1, -4, np.nan, 5], np.float32)
    short = np.asarray([np.nan, 3], np.float32)
    kept = [Exemplar(8, "top", [], values), Exemplar(3, "top", [], short), Exemplar(8, "random", [], values)]
    places = {8: [(0, 1, 3), (1, 2, 4), (2, 4, 5), (3, 1, 2)], 3: [(3, 1, 2)]}
    found = {seq_id: np.asarray(spans, np.int32) for seq_id, spans in places.items()}
    numbers, means = mean_responses(kept, "+", found, 5, "max")
    assert (numbers.tolist(), means[:, 0].tolist()) == ([0, 2, 3], [1, 5, 2])
    numbers, means = mean_responses(kept, "-", found, 5, "max")
    assert means[:, 0].tolist() == [4, -5, -2], "in the sign of the unit, in which the largest counts"
    assert len(mean_responses([], "+", found, 5, "max")[0]) == 0


NOTHING = {"explain": 0, "select": 2, "report": 2}
FIVE = {"explain": 5, "select": 2, "report": 2}


@pytest.mark.parametrize(
    ("record", "sasc", "says"),
    [
        (
            {"top": NOTHING, "random": NOTHING, "per_band": NOTHING},
            {},
            "the 0 sequences of .* hold 0 n-grams of the list",
        ),
        (
            {"top": FIVE, "random": NOTHING, "per_band": NOTHING},
            {"max_ngrams": 1},
            r"the 5 sequences of .* hold 1 n-grams of the list",
        ),
    ],
)
def test_units_with_too_little_recorded_fail_by_name(
    place: Path, record: dict[str, Any], sasc: dict[str, Any], says: str
) -> None:
    root = run_ngrams(recorded_run(place, f"little-{len(sasc)}", ["layers.0.mlp", GOOD], record, **sasc))
    own = table(root, "responses").query("module == 'layers.0.mlp'")
    assert set(own["status"]) == {"failed"}
    assert own["error"].str.contains(f"{says}, and sigma takes 2; record more of them").all(), own["error"].to_list()
    assert own[["mean", "sigma"]].isna().all(axis=None)
    assert len(own) == 48
    assert set(table(root, "ngrams")["module"]) <= {GOOD}


@pytest.mark.parametrize("reading", ["recorded", "alone"])
def test_ngrams_are_made_anew_with_the_recording_they_are_read_in(place: Path, reading: str) -> None:
    config = run_file(place, f"redo-{reading}", ["layers.0.mlp"], RECORD, BOTH, reading=reading)
    root = run_ngrams(config)
    (partials,) = (root / "_ngrams" / "partials").glob("*.parquet")
    finer = config.model_copy(update={"record": config[Record].model_copy(update={"activation_bits": 20})})
    before, after = (SCAN.inputs(one, upstream_of(one)) for one in (config, finer))
    assert (before != after) == (reading == "recorded")
    assert read_footer(partials).inputs == before
    discard(["record.merge"], config, STAGES)
    assert partials.exists() == (reading == "alone")


def upstream_of(config: RunConfig) -> dict[str, str]:
    """Fingerprints of what the scan reads, in a run of these settings that has no files yet."""
    fresh = config.model_copy(update={"run": config.run.model_copy(update={"name": "fresh"})})
    found = survey(fresh, STAGES)
    return {name: fingerprint(found[name].inputs) for name in SCAN.upstream(config)}


def test_without_the_recording_the_scan_waits(place: Path) -> None:
    config = recorded_run(place, "waits", ["layers.0.mlp"])
    for name in ("corpus", "ngrams.list"):
        run_stage(STAGES[name], config, STAGES, show=False)
    with pytest.raises(UserError, match=r"ngrams\.scan reads record\.merge, which is not finished; run that first"):
        run_stage(SCAN, config, STAGES, show=False)


def test_a_run_that_records_too_little_is_refused_when_it_is_read(place: Path) -> None:
    with pytest.raises(UserError, match=r"add it to record\.polarities, or choose another sasc\.reading"):
        recorded_run(place, "plus", ["layers.0.mlp"], {"polarities": ["+"]})
    recorded_run(place, "plus", ["layers.0.mlp"], {"polarities": ["+"]}, polarities=["+"])
    with pytest.raises(UserError, match=r'set run\.methods = \["simulation", "sasc"\], or choose another'):
        run_file(place, "unrecorded", ["layers.0.mlp"], reading="recorded")
