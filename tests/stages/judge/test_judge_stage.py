"""The stages judge.texts and judge on a tiny model: texts are of the report split, and what they say of a unit is what the unit does."""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import stages.asking
from pipeline.commands.verify import verify_run
from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.llm.engine import Request
from pipeline.schemas import EXEMPLARS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import load_subject, load_tokenizer
from pipeline.subjects.text_functions import open_text_function
from stages import STAGES
from stages.judge.judge_tables import EXAMPLE_SCORES, JUDGEMENTS
from stages.judge.text_choice import JUDGED_TEXTS
from stages.settings import SECTIONS
from tests.pipeline.asked import Asked, run
from tests.pipeline.subjects.conftest import save_tiny_llama

pytestmark = pytest.mark.slow
WORDS = ["the", "red", "house", "and", "green", "door", "stood", "by", "blue", "water", "seven", "birds", "sang", "of"]
BEFORE = [name for name in STAGES if name.startswith(("corpus", "record.")) or name in ("explain", "simulate", "score")]


def usable(request: Request, number: int) -> str:
    """A list of new texts, in the form that was asked for, or answers of yes."""
    asked = request.messages[-1].content
    count = len(re.findall(r"^\d+\. ", asked, re.MULTILINE))
    if asked.startswith("Write "):
        wanted, seed = int(asked.split()[1]), zlib.crc32(asked.encode()) % 1000
        return json.dumps(
            {"texts": [f"The {WORDS[(seed + n) % 14]} birds {n} sang by the water at {seed}." for n in range(wanted)]}
        )
    if asked.startswith("Reword "):
        return "\n".join(f"{n}. By the blue water there were {WORDS[n % 14]} doors." for n in range(1, count + 1))
    return "\n".join(f"{n}: yes" for n in range(1, count + 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to its scores, for both polarities."""
    found = tmp_path_factory.mktemp("judged")
    save_tiny_llama(found / "model", initializer_range=0.4)
    drawn = np.random.default_rng(0)
    texts = [" ".join(f"The {' '.join(drawn.choice(WORDS, 2))} sang." for _ in range(18)) for _ in range(24)]
    (found / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    run(config(found), *BEFORE)
    return found


def config(folder: Path, **judge: Any) -> RunConfig:
    engine = {"model": "large", "base_url": "http://127.0.0.1:9/v1", "tokenizer": str(folder / "model")}
    few = {"explain": 4, "select": 2, "report": 3}
    values: dict[str, Any] = {
        "run": {"name": "run", "folder": str(folder)},
        "subject": {"model": str(folder / "model"), "modules": ["layers.0.mlp"]},
        "corpus": {"source": str(folder / "texts.jsonl"), "seq_len": 40, "max_sequences": 96},
        "record": {"top": few, "random": few, "batch_size": 16, "shard_sequences": 48, "activation_bits": 24},
        "explain": {"explainer": "statistics", "units": 4, "polarities": ["+", "-"], "candidates": 1},
        "simulate": {"simulator": "word", "controls": 1},
        "judge": {"methods": ["embedding"], "engine": engine, "controls": 1, "context": 16} | judge,
    }
    return parse_config(values, "run.toml", SECTIONS)


def rows(config: RunConfig, table: Any) -> pd.DataFrame:
    return Tables(config.root).read(table).to_pandas()


def redone(folder: Path, monkeypatch: pytest.MonkeyPatch, **judge: Any) -> RunConfig:
    """The run judged anew."""
    from pipeline.commands.run import prepare_redo

    found = config(folder, **judge)
    engine = Asked(load_tokenizer(str(folder / "model")), usable)
    monkeypatch.setattr(stages.asking, "load_engine", lambda config, context: engine)
    prepare_redo(found, STAGES, "judge")
    run(found, "judge.texts", "judge")
    return found


def test_texts_are_of_the_report_split_and_their_activations_those_of_the_subject(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = redone(folder, monkeypatch, methods=["embedding", "detection"])
    texts = rows(done, JUDGED_TEXTS)
    corpus = pd.concat(pd.read_parquet(file) for file in (done.root / "corpus").glob("*.parquet")).set_index("seq_id")
    report = set(corpus.index[corpus["split"] == "report"])
    assert set(texts["seq_id"]) <= report
    assert len(set(texts["seq_id"])) > 6, "more than what is recorded of a unit"
    model = load_subject(done.subject).model
    assert set(texts["polarity"]) == {"+", "-"}
    for (index, polarity), unit in texts.groupby(["index", "polarity"]):
        sign = 1 if polarity == "+" else -1
        peaks = {}
        for seq_id in report:
            values = _plain(model, corpus.loc[seq_id, "token_ids"], index)
            peaks[seq_id] = float(np.max(sign * values[1:]))
        for row in unit.to_dict("records"):
            assert sign * row["max_activation"] == pytest.approx(peaks[row["seq_id"]], rel=1e-4, abs=1e-5)
            if row["band"] == "fires":
                assert peaks[row["seq_id"]] > row["fires_above"]
        quiet = [peaks[seq_id] for seq_id in unit[unit["band"] == "quiet"]["seq_id"]]
        assert max(quiet) <= unit["fires_above"].iloc[0]
        fires = np.mean([peak > unit["fires_above"].iloc[0] for peak in peaks.values()])
        assert unit["share_firing"].iloc[0] == pytest.approx(fires), "the sample holds the whole split here"
        strongest = unit[unit["band"] == "fires"].sort_values("decile", kind="stable")
        assert strongest.groupby("decile")["max_activation"].mean().abs().is_monotonic_decreasing
    seen = rows(done, EXEMPLARS).query("split != 'report'")
    judged = rows(done, JUDGEMENTS)
    assert not set(judged["seq_id"]) & set(seen["seq_id"])
    assert set(judged["seq_id"]) <= report


def _plain(model: Any, token_ids: Any, index: Any) -> Any:
    """The input of the MLP's last layer, which are its neurons."""
    import torch

    taken: list[Any] = []
    handle = model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.inference_mode():
        model(torch.tensor([list(token_ids)]))
    handle.remove()
    return taken[0][0, :, index].numpy()


def test_new_texts_are_run_through_the_subject(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = ["sensitivity", "sensitivity_written", "paraphrases"]
    done = redone(folder, monkeypatch, methods=methods)
    judged, scores = rows(done, JUDGEMENTS), rows(done, EXAMPLE_SCORES)
    assert set(scores["method"]) == set(methods)
    assert (scores["status"] == "ok").all(), scores["error"].dropna().tolist()
    assert judged["seq_id"].isna().all()
    assert verify_run(done.root, STAGES, done), "rows about new texts refer to no sequence"
    bounds = rows(done, JUDGED_TEXTS).groupby(["index", "polarity"])["fires_above"].first()
    responses = open_text_function(done, "layers.0.mlp", "max")
    for row in judged[judged["polarity"] == "+"].head(60).to_dict("records"):
        peak = responses.values([row["text"]])[0, row["index"]]
        assert row["fits"] == (peak > bounds[row["index"], "+"]), "new texts fire the unit or not, as they do alone"
    for row in scores.to_dict("records"):
        own = judged.query(
            f"index == {row['index']} and polarity == '{row['polarity']}' and method == '{row['method']}' and control == '' and says"
        )
        assert row["example_score"] == pytest.approx(own["fits"].mean())
        assert 0 <= row["chance"] <= 1
    assert set(scores[scores["method"] != "paraphrases"]["n_shuffled"]) == {1}
    assert set(scores[scores["method"] == "paraphrases"]["n_shuffled"]) == {0}


def test_a_negative_polarity_looks_for_the_most_negative_activation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = redone(folder, monkeypatch, methods=["sensitivity_written"])
    judged = rows(done, JUDGEMENTS).query("polarity == '-'")
    bounds = rows(done, JUDGED_TEXTS).query("polarity == '-'").groupby("index")["fires_above"].first()
    model, tokenizer = load_subject(done.subject).model, load_tokenizer(str(folder / "model"))
    for row in judged.head(20).to_dict("records"):
        ids = [tokenizer.bos_token_id, *tokenizer(row["text"], add_special_tokens=False)["input_ids"]]
        assert row["fits"] == (np.max(-_plain(model, ids, row["index"])[1:]) > bounds[row["index"]])


@pytest.mark.parametrize(
    "judge",
    [{"sample": 0}, {"negatives": "weak", "methods": ["surprisal"]}, {"fuzzing": "active", "methods": ["fuzzing"]}],
)
def test_whatever_texts_are_asked_for_either_kind_has_as_many(
    judge: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = redone(folder, monkeypatch, **judge)
    scores, texts = rows(done, EXAMPLE_SCORES), rows(done, JUDGED_TEXTS)
    ok = scores[scores["status"] == "ok"]
    assert len(ok)
    assert (ok["n_fitting"] == ok["n_other"]).all()
    if judge.get("sample") == 0:
        assert texts.groupby(["index", "polarity"])["seq_id"].nunique().max() <= 6, "of what is recorded alone"
