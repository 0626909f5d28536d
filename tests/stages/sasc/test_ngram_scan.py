"""The three stages on a small run: every kind of unit, functions good and bad, alone and in context."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.execution.survey import survey
from pipeline.storage.footers import fingerprint
from pipeline.subjects.text_functions import open_text_function
from stages import STAGES
from stages.sasc.ngram_scan import SCAN
from tests.stages.sasc.small_run import BAD, GOOD, UNITS, run_file, run_ngrams, table

pytestmark = pytest.mark.usefixtures("in_place")


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """A finished run on units of every kind and functions good and bad."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return run_ngrams(run_file(place, "alone", [GOOD, *UNITS, *BAD]))


def values(place: Path, module: str, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return open_text_function(run_file(place, "values", [module]), module, "max").values(texts)


@pytest.mark.parametrize("module", [GOOD, *UNITS])
def test_responses_are_those_of_the_function_of_texts(place: Path, alone: Path, module: str) -> None:
    listed = table(alone, "_ngrams/list")
    assert len(listed) == 200
    wanted = values(place, module, listed["text"].to_list())
    responses = table(alone, "responses").query("module == @module")
    ngrams = table(alone, "ngrams").query("module == @module").set_index(["index", "polarity"])
    signed = module not in {"layers.1.sae:small", "layers.1.attn"}
    assert len(responses) == wanted.shape[1] * (2 if signed else 1)
    for row in responses.to_dict("records"):
        unit, polarity = row["index"], row["polarity"]
        own = wanted[:, unit]
        np.testing.assert_allclose([row["mean"], row["sigma"]], [own.mean(), own.std()], rtol=1e-9, atol=1e-12)
        assert row["n_ngrams"] == 200
        if np.ptp(own) == 0:
            assert row["status"] == "dead"
            assert (unit, polarity) not in ngrams.index
            continue
        assert row["status"] == "ok"
        best = np.lexsort([np.arange(200), -own if polarity == "+" else own])[:10]
        found = ngrams.loc[[(unit, polarity)]]
        assert found["ngram_id"].to_list() == best.tolist()
        assert found["response"].to_list() == own[best].tolist()
        assert found["text"].to_list() == listed["text"][best].to_list()


def test_bad_modules_are_named_failures_and_stop_no_other(alone: Path) -> None:
    responses = table(alone, "responses")
    assert set(responses.query("status == 'failed'")["module"]) == set(BAD)
    assert responses.query("status == 'failed'")[["mean", "sigma"]].isna().all(axis=None)
    assert not set(table(alone, "ngrams")["module"]) & set(BAD)
    errors = responses.drop_duplicates("module").set_index("module")["error"]
    for module, says in {
        "black_box:raises": r"sasc_functions:raises\) raised LookupError: no foxes at .*sasc_functions\.py:\d+",
        "black_box:nan": r"\d+ of 200 responses are NaN or infinite, one of them to n-gram \d+ \('.*fox",
        "black_box:short": r"was given 32 texts and gave 9 values; expected 32 numbers",
        "black_box:random": "must be deterministic",
        "black_box:beside": "treat each text by itself",
        "black_box:slow": "took more than 1 s for 32 texts; make it faster",
    }.items():
        assert pd.Series([errors[module]]).str.contains(says).all(), errors[module]


def test_rows_do_not_depend_on_the_shards(place: Path, alone: Path) -> None:
    modules = [GOOD, "layers.0.mlp", "layers.1.sae:small", "black_box:nan"]
    cut = run_ngrams(run_file(place, "cut", modules, shard_ngrams=37))
    assert len(list((cut / "_ngrams" / "partials").iterdir())) == 6
    for name in ("responses", "ngrams"):
        whole = table(alone, name).query("module in @modules")
        keys = [key for key in ("module", "index", "polarity", "rank") if key in whole]
        one, other = (frame.sort_values(keys, ignore_index=True) for frame in (whole, table(cut, name)))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_chosen_units_alone_are_scanned(place: Path) -> None:
    root = run_ngrams(run_file(place, "few", ["layers.0.mlp", GOOD], units={"layers.0.mlp": [7, 3]}, polarities=["-"]))
    responses = table(root, "responses")
    assert responses[["module", "index", "polarity"]].to_numpy().tolist() == [
        ["layers.0.mlp", 3, "-"],
        ["layers.0.mlp", 7, "-"],
    ]
    partials = table(root, "_ngrams/partials")
    assert partials["largest"].str.len().to_list() == [1, 1], "of the other end only the extreme is kept"


def test_ngrams_of_tokens_are_listed_as_they_stand(place: Path) -> None:
    root = run_ngrams(run_file(place, "tokens", [GOOD], pieces="tokens", sizes=[1, 2]))
    listed = table(root, "_ngrams/list")
    texts = [path.read_text() for path in (place / "texts").iterdir()]
    assert listed["text"].str.startswith(" ").any()
    assert all(any(ngram in text for text in texts) for ngram in listed["text"])
    assert table(root, "responses")["status"].to_list() == ["ok"] * 4 + ["dead"] * 2


@pytest.mark.parametrize(
    ("section", "change", "same"),
    [
        ("corpus", {"seq_len": 16}, False),
        ("sasc", {"max_ngrams": 50}, False),
        ("sasc", {"sizes": [1]}, False),
        ("sasc", {"min_count": 2}, False),
        ("sasc", {"pool": "mean"}, False),
        ("sasc", {"shard_ngrams": 10}, True),
        ("sasc", {"candidates": 2}, True),
        ("sasc", {"texts": 40}, True),
    ],
)
def test_responses_are_kept_by_corpus_and_list(
    place: Path, section: str, change: dict[str, object], same: bool
) -> None:
    config = run_file(place, "kept", [GOOD, "layers.0.mlp"])
    other = config.model_copy(update={section: getattr(config, section).model_copy(update=change)})
    one, two = (fingerprint(survey(c, STAGES)["ngrams.scan"].inputs) for c in (config, other))
    assert (one == two) == same


def test_a_ready_made_black_box_finds_what_is_near_to_its_concepts(place: Path) -> None:
    root = run_ngrams(run_file(place, "near", ["black_box:near"], sizes=[1]))
    best = table(root, "ngrams").query("polarity == '+' and rank < 3").groupby("index")["text"].agg(set)
    assert {"fox", "dog"} <= best[0]
    assert "1984" in best[1]
    assert not {"fox", "dog"} & best[1]


@pytest.mark.parametrize(
    ("modules", "sasc", "says"),
    [
        (["precomputed:made"], {}, "cannot be asked about other texts"),
        (["layers.0.mlp"], {"units": {"layers.0.mlp": [99]}}, r"unit 99 of 'layers.0.mlp', which has units 0 to 23"),
        (["layers.0.mlp"], {"units": {"layers.1.mlp": [0]}}, "sasc.units names 'layers.1.mlp'"),
        (["layers.9.mlp"], {}, "layers.9.mlp"),
    ],
)
def test_what_cannot_be_scanned_is_told_before_the_run(
    place: Path, modules: list[str], sasc: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        SCAN.check(run_file(place, "refused", modules, **sasc))


def test_a_list_without_ngrams_says_what_to_lower(place: Path) -> None:
    with pytest.raises(UserError, match=r"sasc.min_count = 100000 times in the corpus; lower these"):
        run_ngrams(run_file(place, "nothing", [GOOD], min_count=100_000))
