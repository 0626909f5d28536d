"""An estimate is what the stages then ask for, and it says what it rests on."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest

import pipeline.commands.demands
import stages.asking
from pipeline.commands.demands import demands, scaled
from pipeline.commands.estimate import estimate_table
from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.llm.counting_engine import Usage
from pipeline.llm.engine import Request
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages import STAGES
from stages.judge.judge_tables import JUDGEMENTS
from stages.settings import SECTIONS
from tests.pipeline.asked import Asked, run
from tests.pipeline.subjects.conftest import save_tiny_llama

WORDS = ["the", "red", "house", "and", "green", "door", "stood", "by", "blue", "water", "seven", "birds", "sang", "of"]
RECORDING = tuple(name for name in STAGES if name.startswith(("corpus", "record.")))


def usable_reply(request: Request, number: int) -> str:
    """What a method can use as it is: an explanation, or zeros for all tokens that it shows."""
    question = request.messages[-1].content
    fields = request.schema["properties"] if request.schema else {}
    if "texts" in fields:
        count = len(re.findall(r"^Text \d+$", question, re.MULTILINE))
        return json.dumps({"texts": [{"text": place, "active": []} for place in range(1, count + 1)]})
    if question.startswith("The neuron is said to respond to:"):
        return "".join(f"\n{place}: yes" for place in range(1, len(re.findall(r"^\d+\. ", question, re.MULTILINE)) + 1))
    if rows := re.findall(r"^(\d+):(.*)$", question, re.MULTILINE):
        return "\n".join(f"{place}:" + " 0" * (row.count("\t") + 1) for place, row in rows)
    words = f"words of kind {number}"
    return json.dumps({"explanation": words}) if fields else f" {words}."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.txt"
    generator = np.random.default_rng(0)
    file.write_text("\n\n".join(" ".join(generator.choice(WORDS, size=80)) for _ in range(40)))
    return file


def run_file(folder: Path, model: Path, texts: Path, **changes: dict[str, Any]) -> RunConfig:
    engine = {"model": "large", "base_url": "http://127.0.0.1:9/v1", "tokenizer": str(model)}
    few = {"explain": 4, "select": 2, "report": 3}
    values: dict[str, dict[str, Any]] = {
        "run": {"name": "run", "folder": str(folder)},
        "subject": {"model": str(model), "modules": ["layers.0.mlp", "layers.1.mlp"]},
        "corpus": {"source": str(texts), "seq_len": 16, "max_sequences": 96},
        "record": {"top": few, "random": few, "batch_size": 16, "shard_sequences": 48},
        "explain": {"explainer": "max_activation", "units": 3, "candidates": 2, "engine": dict(engine)},
        "simulate": {"simulator": "all_at_once", "controls": 2, "engine": dict(engine)},
    }
    for section, fields in changes.items():
        values.setdefault(section, {}).update(fields)
    return parse_config(values, "run.toml", SECTIONS)


@pytest.fixture
def asked(model: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The engine that all stages ask in this test."""
    engine = Asked(load_tokenizer(str(model)), usable_reply)
    monkeypatch.setattr(stages.asking, "load_engine", lambda config, context: engine)
    return engine


@pytest.mark.parametrize("explainer", ["token_activation", "token_space", "max_activation", "contrastive"])
def test_explaining_asks_for_what_was_estimated(
    explainer: str, tmp_path: Path, model: Path, texts: Path, asked: Asked
) -> None:
    config = run_file(
        tmp_path, model, texts, explain={"explainer": explainer}, simulate={"simulator": "word", "engine": None}
    )
    run(config, *RECORDING)
    [expected] = demands(config, STAGES)
    run(config, "explain")
    assert expected.made_up == []
    assert (asked.calls, asked.prompt_tokens) == (expected.usage.calls, expected.usage.prompt_tokens)
    assert asked.calls == 6


@pytest.mark.slow
def test_hard_negatives_are_estimated_as_they_are_shown(tmp_path: Path, model: Path, texts: Path, asked: Asked) -> None:
    config = run_file(
        tmp_path, model, texts,
        record={"negatives": 6},
        explain={"explainer": "contrastive", "negatives": "hard"},
        simulate={"simulator": "word", "engine": None},
    )  # fmt: skip
    run(config, *RECORDING[: RECORDING.index("record.embed")])
    [before] = demands(config, STAGES)
    run(config, "record.embed", "record.negatives")
    [expected] = demands(config, STAGES)
    run(config, "explain")
    assert before.made_up == ["negatives"]
    assert before.usage.prompt_tokens == pytest.approx(expected.usage.prompt_tokens, rel=0.1)
    assert expected.made_up == []
    assert (asked.calls, asked.prompt_tokens) == (expected.usage.calls, expected.usage.prompt_tokens)
    assert any("does not respond to" in question for question in asked.questions)


FAST = [("all_at_once", 3), ("json", 1)]
SLOW = [(one, pack) for one in ("all_at_once", "generated", "json", "one_at_a_time") for pack in (1, 3)]


@pytest.mark.parametrize(
    ("simulator", "pack"),
    [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW if pair not in FAST)],
)
def test_simulating_asks_for_what_was_estimated(
    simulator: str, pack: int, tmp_path: Path, model: Path, texts: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.commands.demands, "ENOUGH", 10**9)
    config = run_file(tmp_path, model, texts, simulate={"simulator": simulator, "pack": pack})
    run(config, *RECORDING)
    before = demands(config, STAGES)[1]
    run(config, "explain")
    asked.calls = asked.prompt_tokens = 0
    expected = demands(config, STAGES)[1]
    run(config, "simulate")
    assert before.made_up == ["explanations"]
    assert expected.made_up == []
    assert asked.calls == expected.usage.calls == before.usage.calls
    assert asked.prompt_tokens == expected.usage.prompt_tokens
    assert expected.usage.computed_tokens < expected.usage.prompt_tokens / 2


@pytest.mark.slow
@pytest.mark.parametrize("negatives", [0, 4])
def test_judging_asks_for_what_was_estimated(
    negatives: int, tmp_path: Path, model: Path, texts: Path, asked: Asked
) -> None:
    engine = {"model": "large", "base_url": "http://127.0.0.1:9/v1", "tokenizer": str(model)}
    judge = {
        "methods": ["detection", "fuzzing"],
        "engine": engine,
        "controls": 1,
        "negatives": "hard" if negatives else "random",
    }
    word = {"simulator": "word", "engine": None}
    config = run_file(tmp_path, model, texts, simulate=word, judge=judge, record={"negatives": negatives})
    run(config, *RECORDING, "explain", "simulate")
    before = demands(config, STAGES)[-2:]
    run(config, "score", "judge.texts")
    expected = sum((demand.usage for demand in demands(config, STAGES)[-2:]), Usage())
    asked.calls = asked.prompt_tokens = 0
    run(config, "judge")
    assert [demand.stage.split()[-1] for demand in before] == ["detection", "fuzzing"]
    assert [demand.made_up for demand in before] == [["scores", "judged_texts"]] * 2
    assert (asked.calls, asked.prompt_tokens) == (expected.calls, expected.prompt_tokens)
    assert sum(demand.usage.calls for demand in before) == pytest.approx(expected.calls, rel=0.1)
    bands = Tables(config.root).read(JUDGEMENTS).filter(ds.field("method") == "detection")["band"].to_pylist()
    assert ("similar" in bands) == (negatives > 0)


def test_without_a_record_the_estimate_is_close(tmp_path: Path, model: Path, texts: Path) -> None:
    config = run_file(tmp_path, model, texts, simulate={"simulator": "word", "engine": None})
    found = []
    for stage in ("", *RECORDING):
        run(config, *([stage] if stage else []))
        found += demands(config, STAGES)
    stand_in, from_corpus, scanned, recorded, *_ = found
    assert stand_in.made_up == ["corpus", "exemplars", "units"]
    assert from_corpus.made_up == ["exemplars", "units"]
    assert (from_corpus.made_up, from_corpus.usage) == (scanned.made_up, scanned.usage)
    assert recorded.made_up == []
    assert {demand.usage.calls for demand in found} == {6}
    for demand in found:
        assert demand.usage.prompt_tokens == pytest.approx(recorded.usage.prompt_tokens, rel=0.3)


def test_tables_of_another_run_file_are_not_used(tmp_path: Path, model: Path, texts: Path) -> None:
    run(run_file(tmp_path, model, texts), *RECORDING)
    other = run_file(tmp_path, model, texts, run={"seed": 1}, simulate={"simulator": "word", "engine": None})
    assert "corpus" in demands(other, STAGES)[0].made_up


def test_the_cost_is_that_of_the_prices_and_unknown_without_them(tmp_path: Path, model: Path, texts: Path) -> None:
    prices = {"price_in": 1000.0, "price_out": 0.0}
    url = {"base_url": "http://127.0.0.1:9/v1", "tokenizer": str(model)}
    config = run_file(
        tmp_path, model, texts,
        explain={"engine": {"model": "large", **url, **prices}},
        simulate={"engine": {"model": "other", **url}},
    )  # fmt: skip
    explain, _ = demands(config, STAGES)
    rows = table_rows(estimate_table(config, STAGES))
    assert rows["explain"][-1] == f"{explain.usage.prompt_tokens / 1000:,.4f}"
    assert rows["simulate"][-1] == rows["all"][-1] == "unknown"


def test_a_model_in_this_process_has_no_cost(tmp_path: Path, model: Path, texts: Path) -> None:
    own = {"engine": {"model": str(model)}}
    config = run_file(tmp_path, model, texts, explain=own, simulate={"simulator": "word", "engine": None})
    printed = estimate_table(config, STAGES)
    assert table_rows(printed)["explain"][-1] == "-"
    assert "counted by its own tokenizer" in printed


def test_many_partial_records_are_warned_of(tmp_path: Path, model: Path, texts: Path) -> None:
    engines = {
        "explain": {"explainer": "statistics", "engine": None},
        "simulate": {"simulator": "word", "engine": None},
    }
    many = run_file(tmp_path, model, texts, corpus={"max_sequences": 48 * 40}, **engines)
    assert "in 40 parts; fewer take less" in estimate_table(many, STAGES)
    assert "parts" not in estimate_table(run_file(tmp_path, model, texts, **engines), STAGES)


def test_a_run_without_requests_says_so(tmp_path: Path, model: Path, texts: Path) -> None:
    nothing: dict[str, Any] = {"engine": None}
    explain, simulate = {"explainer": "statistics", **nothing}, {"simulator": "word", **nothing}
    config = run_file(tmp_path, model, texts, explain=explain, simulate=simulate)
    assert "no requests" in estimate_table(config, STAGES)


@pytest.mark.parametrize(("limit", "words"), [(10**9, "is enough"), (100, "will stop the run")])
def test_the_budget_is_compared(limit: int, words: str, tmp_path: Path, model: Path, texts: Path) -> None:
    config = run_file(tmp_path, model, texts, budget={"max_tokens_total": limit})
    assert f"budget.max_tokens_total = {limit:,} {words}" in estimate_table(config, STAGES)


def test_without_a_tokenizer_that_of_the_subject_counts_and_is_named(tmp_path: Path, model: Path, texts: Path) -> None:
    engine = {"model": "large", "base_url": "http://127.0.0.1:9/v1"}
    config = run_file(tmp_path, model, texts, explain={"engine": engine})
    words = demands(config, STAGES)[0].tokenizer
    assert str(model) in words
    assert "subject's" in words


def test_a_sample_is_scaled_and_what_all_share_is_computed_once() -> None:
    counted = [Usage(2, 100, 90, 9, 20), Usage(2, 100, 10, 9, 20), Usage(2, 130, 20, 9, 20)]
    assert scaled(counted, 3) == Usage(6, 330, 120, 27, 60)
    assert scaled(counted, 30) == Usage(60, 3300, 90 + 15 * 29, 270, 600)
    assert scaled(counted[:1], 3) == Usage(6, 300, 270, 27, 60)
    assert scaled([], 5) == Usage()


def table_rows(text: str) -> dict[str, list[str]]:
    """The cells of a printed table's rows, by the first cell."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return {row[0]: row[1:] for row in rows if row[0] in {*STAGES, "all"}}
