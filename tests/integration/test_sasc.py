"""The preset for SASC, reduced, through all its stages: planted concepts, units of a model, and a function that fails on texts."""

import re
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline.commands.query import final_report
from pipeline.commands.run import run_pipeline
from pipeline.config.run_file import parse_config
from pipeline.subjects.embedder import load_embedder
from stages import REPORTS, STAGES
from stages.settings import SECTIONS

CARD = Path("outputs/README.md").read_text(encoding="utf-8")
PRESET = Path("pipeline/presets/sasc.toml").resolve()
FUNCTION = '''
def short(texts):
    """The letters of short texts; of others it knows nothing."""
    return [len(text) if len(text) < 30 else float("nan") for text in texts]
'''
NULL = "(module == 'black_box:null_directions')"
CONCEPTS = ["politics and government", "mental illness"]


def reduced(folder: Path) -> dict[str, Any]:
    """The preset with fewer texts, n-grams and units."""
    values = tomllib.loads(PRESET.read_text(encoding="utf-8"))
    values["run"]["folder"] = str(folder)
    values["subject"]["modules"] = ["black_box:concepts", "black_box:short", "layers.4.mlp"]
    values["subject"]["black_boxes"]["concepts"] |= {"arguments": {"concepts": CONCEPTS}, "units": 2}
    values["subject"]["black_boxes"]["short"] = {"call": "short_texts:short"}
    values["corpus"] |= {"max_sequences": 64, "max_documents": 8}
    values["sasc"] |= {
        "max_ngrams": 300,
        "candidates": 2,
        "texts": 12,
        "nulls": 20,
        "bootstrap": 100,
        "shard_units": 2,
    }
    values["sasc"] |= {
        "polarities": ["+", "-"],
        "units": {"black_box:concepts": [0, 1], "black_box:short": [0], "layers.4.mlp": [7]},
    }
    return values


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("sasc")
    (folder / "short_texts.py").write_text(FUNCTION)
    config = parse_config(reduced(folder), "test.toml", SECTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_pipeline(config, STAGES, list(STAGES)) == 1  # as one function fails
    return config.root


def table(root: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(root / name)


def mean_of(texts: pd.DataFrame, half: str, kind: str) -> float:
    return float(texts.query("half == @half and kind == @kind")["response"].to_numpy().mean())


def test_every_unit_has_one_published_score_or_says_why_not(root: Path) -> None:
    scores = table(root, "sasc_scores")
    rows = scores.query(f"status != 'not_selected' and not {NULL}").to_dict("records")
    units = {(row["module"], row["index"], row["polarity"]) for row in rows}
    assert len(units) == 8
    assert sum(row["status"] == "ok" for row in rows) == 6
    assert all((row["status"] == "failed") == (row["module"] == "black_box:short") for row in rows)
    assert scores.query("status != 'ok'")["score"].isna().all()


def test_planted_concepts_are_explained_and_score_above_null_units(root: Path) -> None:
    """Above their mean; above nearly all of them only the clearer one, as 12 of few passages are hardly about politics alone."""
    where = "status == 'ok' and polarity == '+' and module == 'black_box:concepts'"
    rows = table(root, "sasc_scores").query(where).sort_values("index").to_dict("records")
    for row, words in zip(
        rows, (("politic", "government", "parliament"), ("mental", "psycholog", "illness")), strict=True
    ):
        assert any(word in row["text"] for word in words), row["text"]
        assert row["null_mean"] < row["ci_low"] < row["score"] < row["ci_high"]
    assert rows[1]["score"] > rows[1]["null_high"]
    assert rows[1]["p_value"] < 0.1


def test_the_published_score_is_that_of_the_texts_that_did_not_choose(root: Path) -> None:
    texts, responses = table(root, "synthetic_texts"), table(root, "responses")
    for row in table(root, "sasc_scores").query("status in ['ok', 'not_selected']").to_dict("records"):
        same = "module == @row['module'] and index == @row['index'] and polarity == @row['polarity']"
        own, unit = texts.query(f"{same} and candidate == @row['candidate']"), responses.query(same)
        sign = 1 if row["polarity"] == "+" else -1
        select, report = (
            sign * (mean_of(own, half, "relevant") - mean_of(own, half, "baseline")) / unit["sigma"].item()
            for half in ("select", "report")
        )
        assert row["score_select"] == pytest.approx(select)
        if row["status"] == "ok":
            assert row["score"] == pytest.approx(report)
            assert row["n_relevant"] == len(own.query("half == 'report' and kind == 'relevant'"))


def test_the_best_candidate_on_the_select_half_is_published(root: Path) -> None:
    scores = table(root, "sasc_scores").query("module != 'black_box:short'")
    for _, rows in scores.groupby(["module", "index", "polarity"]):
        best = rows.sort_values("score_select", ascending=False).to_dict("records")[0]
        assert best["status"] == "ok"


def test_halves_share_no_text_and_texts_are_passages_of_the_corpus(root: Path) -> None:
    texts = table(root, "synthetic_texts").query("text.notna()")
    corpus = " ".join("".join(tokens) for tokens in table(root, "corpus")["tokens"])
    assert set(texts["origin"]) == {"retrieved"}
    assert all(text in corpus for text in texts["text"])
    for _, own in texts.groupby(["module", "index", "polarity", "candidate"]):
        assert own["text"].is_unique
    for _, own in texts.groupby(["module", "index", "polarity", "candidate", "kind"]):
        assert set(own["half"]) == {"select", "report"}
        assert abs((own["half"] == "select").sum() - len(own) / 2) <= 1
    for _, unit in texts.groupby(["module", "index", "polarity"]):
        assert (unit.groupby("text")["half"].nunique() == 1).all()
    assert texts.duplicated(["module", "index", "polarity", "text"]).any(), "candidates share texts"


def test_null_units_go_through_every_stage(root: Path) -> None:
    responses, themes, texts = (table(root, name).query(NULL) for name in ("responses", "themes", "synthetic_texts"))
    assert list(responses["index"]) == list(range(20))
    assert (themes.groupby("index")["text"].nunique() == 2).all()
    assert texts.groupby("index").size().min() == 2 * 2 * 12
    embedder = load_embedder()
    one = texts.query("index == 3")
    vectors = embedder.encode(one["text"].to_list()).astype(np.float64)
    found = np.linalg.lstsq(vectors, one["response"].to_numpy(), rcond=None)[0]
    assert np.allclose(vectors @ found, one["response"])  # a projection of the embeddings
    assert responses["sigma"].max() < 2 * responses["sigma"].min()


def test_p_values_count_the_null_units_with_at_least_that_score(root: Path) -> None:
    scores = table(root, "sasc_scores")
    nulls = scores.query(f"{NULL} and status == 'ok'")
    assert len(nulls) == 20
    assert nulls[["p_value", "null_mean", "null_high"]].isna().all().all()
    rows = scores.query(f"not {NULL} and status == 'ok'").to_dict("records")
    assert len(rows) == 6
    for row in rows:
        above = int((nulls["score"] >= row["score"]).sum())
        assert row["p_value"] == pytest.approx((1 + above) / 21)
        assert row["null_mean"] == pytest.approx(nulls["score"].mean())
        assert row["null_high"] == pytest.approx(nulls["score"].quantile(0.95))


def test_a_function_without_numbers_for_texts_ends_in_named_failures(root: Path) -> None:
    short = table(root, "sasc_scores").query("module == 'black_box:short'")
    assert short["error"].str.contains("the response is nan").all()
    assert short[["score", "score_select", "p_value"]].isna().all().all()
    assert (
        table(root, "synthetic_texts").query("module == 'black_box:short' and status == 'ok'")["response"] < 30
    ).all()


@pytest.mark.parametrize("query", re.findall(r"```sql\n((?:(?!```).)*outputs/sasc(?:(?!```).)*)```", CARD, flags=re.S))
def test_a_query_of_the_data_card_works(root: Path, query: str) -> None:
    assert duckdb.execute(query.replace("outputs/sasc", str(root))).fetchall()


def test_the_report_at_the_end_shows_the_best(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    config = parse_config(reduced(root.parent), "test.toml", SECTIONS)
    run_pipeline(config, STAGES, list(STAGES), report=lambda: final_report(root, 0, REPORTS))
    report = capsys.readouterr().out
    assert "nothing to compute" in report
    parts = report.split("\n\n")
    by_module, shown, failures = (
        next(part for part in parts if part.startswith(title)) for title in ("By module", "Explanations", "Not scored")
    )
    assert "black_box:short" in by_module
    assert all(column in by_module for column in ("units", "scored", "mean score"))
    assert shown.count("black_box:concepts") == 4
    assert "black_box:short" not in shown
    assert failures.splitlines()[-1].split(maxsplit=3) == [
        *("black_box:short", "2", "failed"),
        "the response is nan; give a number for every text",
    ]
    assert "standard deviations of its responses to n-grams" in report
    assert "6 of 8 units scored" in report
    assert "2 failed" in report
