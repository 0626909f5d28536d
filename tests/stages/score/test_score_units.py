"""Scores of units whose right answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr

from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.schemas import SIMULATIONS
from pipeline.storage.shards import publish
from stages.evidence import Exemplar
from stages.score.pairs import pair, simulation_errors
from stages.score.score_units import SCORES, score_unit
from stages.score.truth import BANDS, Truth
from stages.settings import SECTIONS, Score

T = 12
CONFIG: RunConfig = parse_config(
    {
        "run": {"name": "a"},
        "subject": {"model": "m", "modules": ["layers.0.mlp"]},
        "corpus": {"source": "c.txt"},
        "score": {"bootstrap": 200},
    },
    "test",
    SECTIONS,
)


def make_exemplars(rng: np.random.Generator, repeat: bool = True) -> list[Exemplar]:
    """Ten sequences a split, half `top` and half `random`; one of them kept for both reasons."""
    found = []
    for split, first in (("select", 100), ("report", 200)):
        for number in range(10):
            activations = rng.normal(size=T).astype(np.float32)
            activations[0] = np.nan
            band = "top" if number < 5 else "random"
            found.append(Exemplar(first + number, band, ["x"] * T, activations, split))
        if repeat:
            found.append(Exemplar(first, "random", ["x"] * T, found[-10].activations, split))
    return found


def truth_of(exemplars: list[Exemplar]) -> Truth:
    kept = [one for one in exemplars if one.band in BANDS]
    return Truth.of(
        np.full(len(kept), 7),
        np.array([one.seq_id for one in kept]),
        np.array([one.split == "report" for one in kept]),
        np.array([BANDS.index(one.band) for one in kept]),
        np.array([len(one.activations) for one in kept]),
        np.concatenate([one.activations for one in kept]),
    )


def simulated(
    exemplar: Exemplar, values: Any, candidate: int | None = 0, control: str = "", source: int = 7, of_source: int = 0
) -> dict[str, Any]:
    return {
        "module": "layers.0.mlp", "index": 7, "polarity": "+", "explainer": "e", "candidate": candidate,
        "simulator": "word", "control": control, "source": source, "source_candidate": of_source,
        "seq_id": exemplar.seq_id, "split": exemplar.split,
        "expected": values, "coverage": None if values is None else np.full(T, 0.5),
        "status": "failed" if values is None else "ok", "error": "no numbers" if values is None else None,
    }  # fmt: skip


def explanations(count: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "module": "layers.0.mlp",
            "index": 7,
            "polarity": "+",
            "explainer": "e",
            "candidate": c,
            "text": f"t{c}",
            "status": "ok",
        }
        for c in range(count)
    ]


def score(exemplars: list[Exemplar], rows: list[dict[str, Any]], count: int = 1) -> list[dict[str, Any]]:
    table = pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)
    paired = pair(table, truth_of(exemplars))
    scored = score_unit(CONFIG, explanations(count), paired, simulation_errors(table), np.random.default_rng(0))
    found: list[dict[str, Any]] = SCORES.of_rows(scored).to_pylist()
    return found


def each_once(exemplars: list[Exemplar], split: str) -> list[Exemplar]:
    return list({e.seq_id: e for e in exemplars if e.split == split}.values())


def noisy(exemplar: Exemplar, rng: np.random.Generator, noise: float) -> Any:
    return (np.nan_to_num(exemplar.activations) + noise * rng.normal(size=T)).astype(np.float32)


def test_the_correlation_is_pearsons_over_the_report_sequences_each_once() -> None:
    rng = np.random.default_rng(0)
    exemplars = make_exemplars(rng)
    rows = [simulated(e, noisy(e, rng, 1.0)) for split in ("select", "report") for e in each_once(exemplars, split)]
    [found] = score(exemplars, rows)
    by_id = {row["seq_id"]: row["expected"] for row in rows}
    report = each_once(exemplars, "report")
    true = np.concatenate([e.activations[1:] for e in report])
    expected = np.concatenate([by_id[e.seq_id][1:] for e in report])
    assert found["correlation"] == pytest.approx(pearsonr(true, expected).statistic, abs=1e-6)
    assert (found["n_sequences"], found["n_tokens"]) == (10, 10 * (T - 1))
    drawn = [e for e in report if e.band == "random"]
    assert len(drawn) == 6
    wanted = pearsonr(
        np.concatenate([e.activations[1:] for e in drawn]), np.concatenate([by_id[e.seq_id][1:] for e in drawn])
    ).statistic
    assert found["correlation_random"] == pytest.approx(wanted, abs=1e-6)
    assert found["ci_low"] < found["correlation"] < found["ci_high"]
    assert found["coverage"] == 0.5
    assert found["status"] == "ok"


def test_the_candidate_is_chosen_on_select_and_published_on_report() -> None:
    """Candidate 1 is right on select only, candidate 0 on report only: the honest score is that of candidate 1."""
    rng = np.random.default_rng(1)
    exemplars = make_exemplars(rng)
    rows = []
    for candidate, good in ((0, "report"), (1, "select")):
        for split in ("select", "report"):
            rows += [
                simulated(e, noisy(e, rng, 0.1) if split == good else rng.normal(size=T), candidate)
                for e in each_once(exemplars, split)
            ]
    first, second = score(exemplars, rows, 2)
    assert (first["status"], second["status"]) == ("not_selected", "ok")
    assert first["correlation"] is None
    assert abs(second["correlation"]) < 0.4
    assert second["correlation_select"] > 0.9
    assert second["n_candidates"] == 2


def test_an_inverted_explanation_keeps_its_sign() -> None:
    rng = np.random.default_rng(2)
    exemplars = make_exemplars(rng)
    rows = [simulated(e, -noisy(e, rng, 0.1)) for s in ("select", "report") for e in each_once(exemplars, s)]
    [found] = score(exemplars, rows)
    assert found["correlation"] < -0.9
    assert found["r_squared"] < 0.1


def test_a_failed_simulation_is_a_null_and_never_a_zero() -> None:
    exemplars = make_exemplars(np.random.default_rng(3))
    rows = [simulated(e, None) for s in ("select", "report") for e in each_once(exemplars, s)]
    [found] = score(exemplars, rows)
    assert found["status"] == "failed"
    assert "no numbers" in found["error"]
    for name in ("correlation", "ci_low", "ci_high", "r_squared", "absolute_deviation", "selectivity", "p_value"):
        assert found[name] is None


def test_failed_sequences_are_left_out_and_named() -> None:
    rng = np.random.default_rng(4)
    exemplars = make_exemplars(rng)
    report = each_once(exemplars, "report")
    rows = [simulated(e, noisy(e, rng, 0.1)) for e in each_once(exemplars, "select")]
    rows += [simulated(e, None if i < 3 else noisy(e, rng, 0.1)) for i, e in enumerate(report)]
    [found] = score(exemplars, rows)
    assert found["n_sequences"] == 7
    assert found["correlation"] > 0.9
    assert "left out" in found["error"]


def test_a_constant_prediction_is_undefined() -> None:
    exemplars = make_exemplars(np.random.default_rng(5))
    rows = [simulated(e, np.full(T, 2.5)) for s in ("select", "report") for e in each_once(exemplars, s)]
    [found] = score(exemplars, rows)
    assert (found["status"], found["correlation"]) == ("undefined", None)


def test_controls_stand_beside_the_score() -> None:
    rng = np.random.default_rng(6)
    exemplars = make_exemplars(rng)
    report = each_once(exemplars, "report")
    rows = [simulated(e, noisy(e, rng, 0.1)) for s in ("select", "report") for e in each_once(exemplars, s)]
    for source in range(20, 39):
        rows += [simulated(e, rng.normal(size=T), None, "shuffled", source) for e in report]
    rows += [simulated(e, noisy(e, rng, 2.0), None, "lookup") for e in report]
    rows += [simulated(e, np.zeros(T), None, "constant") for e in report]
    [found] = score(exemplars, rows)
    assert found["n_shuffled"] == 19
    assert abs(found["correlation_shuffled"]) < 0.2
    assert found["p_value"] == pytest.approx(1 / 20)
    assert found["selectivity"] == pytest.approx(found["correlation"] - found["correlation_shuffled"])
    assert 0.1 < found["correlation_lookup"] < 0.8
    assert found["correlation_constant"] is None
    assert found["correlation_top_token"] is None


def test_of_another_unit_s_candidates_the_one_that_does_best_on_select_is_the_control() -> None:
    """Candidate 0 is right by half everywhere; candidate 1 of unit 20 is right on select alone, of 21 on report alone, of 22 nowhere."""
    rng = np.random.default_rng(10)
    exemplars = make_exemplars(rng)
    held_out = [(e, split) for split in ("select", "report") for e in each_once(exemplars, split)]
    rows = [simulated(e, noisy(e, rng, 1.0)) for e, _ in held_out]
    for source, good in ((20, "select"), (21, "report"), (22, "")):
        for e, split in held_out:
            right = noisy(e, rng, 0.01)
            rows.append(simulated(e, right if split == good else -right, None, "shuffled", source, 1))
            rows.append(simulated(e, noisy(e, rng, 1.7), None, "shuffled", source, 0))
    [found] = score(exemplars, rows)
    assert found["n_shuffled"] == 3
    assert found["correlation_shuffled"] == pytest.approx((-1 + 0.5 + 0.5) / 3, abs=0.15)


def test_the_opposite_is_that_of_the_chosen_candidate() -> None:
    rng = np.random.default_rng(12)
    exemplars = make_exemplars(rng)
    report = each_once(exemplars, "report")
    rows = []
    for candidate, noise in ((0, 3.0), (1, 0.1)):
        held_out = [e for split in ("select", "report") for e in each_once(exemplars, split)]
        rows += [simulated(e, noisy(e, rng, noise), candidate) for e in held_out]
        rows += [simulated(e, -noisy(e, rng, noise), None, "inverted", 7, candidate) for e in report]
    _, found = score(exemplars, rows, 2)
    assert found["correlation"] > 0.9
    assert found["correlation_inverted"] < -0.9


@pytest.mark.parametrize(("sign", "p_value"), [(1, 1 / 21), (-1, 1.0)])
def test_a_control_under_which_nothing_varies_is_beaten_by_a_positive_score(sign: int, p_value: float) -> None:
    rng = np.random.default_rng(6)
    exemplars = make_exemplars(rng)
    report = each_once(exemplars, "report")
    rows = [simulated(e, sign * noisy(e, rng, 0.1)) for s in ("select", "report") for e in each_once(exemplars, s)]
    for source in range(20, 40):
        flat = source < 35
        rows += [simulated(e, np.zeros(T) if flat else rng.normal(size=T), None, "shuffled", source) for e in report]
    [found] = score(exemplars, rows)
    assert found["n_shuffled"] == 20
    assert found["p_value"] == pytest.approx(p_value)
    assert abs(found["correlation_shuffled"]) < 0.1


@pytest.mark.slow
def test_units_whose_own_explanation_predicts_nothing_have_their_p_values_too() -> None:
    """Of explanations that are all alike, half predict nothing: without theirs, the other units would seem to beat their controls."""
    rng = np.random.default_rng(12)
    found = []
    for _ in range(400):
        exemplars, says = make_exemplars(rng, repeat=False), rng.random(20) < 0.5
        rows = []
        for e in (e for split in ("select", "report") for e in each_once(exemplars, split)):
            said = says[:, None] * rng.normal(size=(20, T))
            rows.append(simulated(e, said[0]))
            rows += [simulated(e, said[s], None, "shuffled", 20 + s) for s in range(1, 20) if e.split == "report"]
        [row] = score(exemplars, rows)
        assert row["p_value"] is not None
        assert (row["correlation"] is None) == (not says[0])
        found.append(row["p_value"])
    assert np.mean(np.asarray(found) <= 0.1) == pytest.approx(0.1, abs=0.04)


def test_a_failed_explanation_has_a_row_without_a_score() -> None:
    exemplars = make_exemplars(np.random.default_rng(7))
    paired = pair(pa.Table.from_pylist([], schema=SIMULATIONS.schema), truth_of(exemplars))
    [row] = explanations()
    row |= {"status": "dead", "text": None, "error": "never fires"}
    [found] = SCORES.of_rows(score_unit(CONFIG, [row], paired, {}, np.random.default_rng(0))).to_pylist()
    assert (found["status"], found["error"], found["correlation"]) == ("dead", "never fires", None)


def test_a_simulation_of_another_length_is_refused() -> None:
    exemplars = make_exemplars(np.random.default_rng(8))
    table = pa.Table.from_pylist([simulated(exemplars[0], np.zeros(T + 1))], schema=SIMULATIONS.schema)
    with pytest.raises(ValueError, match="as many expected activations as tokens"):
        pair(table, truth_of(exemplars))


def test_an_explanation_that_was_cut_off_is_scored_and_says_so() -> None:
    rng = np.random.default_rng(9)
    exemplars = make_exemplars(rng)
    rows = [simulated(e, noisy(e, rng, 0.1)) for s in ("select", "report") for e in each_once(exemplars, s)]
    table = pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)
    [row] = explanations()
    row |= {"status": "truncated", "error": "cut off"}
    [found] = score_unit(CONFIG, [row], pair(table, truth_of(exemplars)), {}, np.random.default_rng(0))
    assert (found["status"], found["error"]) == ("ok", "cut off")
    assert found["correlation"] > 0.9


def test_the_scores_of_a_shard_lie_in_one_row_group_as_people_sort_all_of_them(tmp_path: Path) -> None:
    rows = SCORES.of_rows([{"module": "layers.0.mlp", "index": index, "correlation": 0.5} for index in range(1024)])
    publish(tmp_path / "part-00000.parquet", rows, SCORES, {})
    assert pq.read_metadata(tmp_path / "part-00000.parquet").num_row_groups == 1
    assert Score().shard_units == rows.num_rows
