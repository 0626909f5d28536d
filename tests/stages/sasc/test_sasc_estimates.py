"""An estimate of SASC is what its stages then ask for; no function of texts is asked for it."""

import json
from pathlib import Path
from typing import Any

import pytest

import pipeline.commands.demands
import stages.asking
from pipeline.commands.demands import demands
from pipeline.commands.estimate import estimate_table
from pipeline.config import RunConfig
from pipeline.llm.engine import Request
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages import STAGES
from tests.pipeline.asked import Asked, run
from tests.stages.sasc.small_run import BOTH, GOOD, run_file

NGRAMS = ("corpus", "ngrams.list", "ngrams.scan", "ngrams.merge")
UNITS = {GOOD: [0, 1, 2], "layers.0.mlp": [0, 1, 2, 3]}
TEXTS, CANDIDATES = 24, 3

pytestmark = pytest.mark.usefixtures("in_place")


class Written:
    """Usable replies, no two alike."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, request: Request, number: int) -> str:
        self.number += 1
        if not request.schema:
            return "law of taxes"
        if "explanation" in request.schema["properties"]:
            return json.dumps({"explanation": f"the theme {self.number} of the phrases"})
        count = int(request.messages[-1].content.split()[1])
        return json.dumps({"texts": [f"A bird sang song {self.number} in garden {place}." for place in range(count)]})


@pytest.fixture
def asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The engine that both stages ask in this test."""
    engine = Asked(load_tokenizer(str(place / "model")), Written())
    monkeypatch.setattr(stages.asking, "load_engine", lambda config, context: engine)
    return engine


def configured(place: Path, name: str, **sasc: Any) -> RunConfig:
    engine = {"model": "large", "base_url": "http://127.0.0.1:9/v1", "tokenizer": str(place / "model")}
    methods = {"explainer": "language_model", "synthesizer": "language_model"}
    engines = {"explain_engine": engine, "synthesize_engine": engine}
    few = {"texts": TEXTS, "candidates": CANDIDATES, "units": UNITS, "nulls": 0}
    sasc = methods | engines | few | sasc
    modules = list(sasc["units"] if isinstance(sasc["units"], dict) else UNITS)
    return run_file(place, name, modules, methods=BOTH if sasc.get("reading") == "recorded" else ("sasc",), **sasc)


def test_the_stages_ask_for_what_was_estimated(place: Path, asked: Asked) -> None:
    config = configured(place, "asked")
    run(config, *NGRAMS)
    explain, before = demands(config, STAGES)
    run(config, "explain.sasc")
    assert (explain.stage, explain.made_up) == ("explain.sasc", [])
    assert (asked.calls, asked.prompt_tokens) == (explain.usage.calls, explain.usage.prompt_tokens)
    assert (explain.units, asked.calls) == (14, CANDIDATES * 12), "one unit is dead, with both signs"
    asked.calls = asked.prompt_tokens = 0
    synthesize = demands(config, STAGES)[1]
    run(config, "synthesize")
    assert (before.made_up, synthesize.made_up) == (["themes"], [])
    assert (asked.calls, asked.prompt_tokens) == (synthesize.usage.calls, synthesize.usage.prompt_tokens)
    assert asked.calls == before.usage.calls == 12 * CANDIDATES * 2 * 3, "24 texts of a kind take three requests"
    assert before.usage.prompt_tokens == pytest.approx(synthesize.usage.prompt_tokens, rel=0.3)


def test_before_the_ngrams_are_known_the_estimate_is_close(place: Path, asked: Asked) -> None:
    config = configured(place, "close", units={GOOD: [0, 1], "layers.0.mlp": [0, 1]})
    found = []
    for stage in ("", *NGRAMS):
        run(config, *([stage] if stage else []))
        found.append(demands(config, STAGES)[0])
    nothing, corpus, listed, scanned, recorded = found
    assert nothing.made_up == ["corpus", "ngrams", "responses"]
    assert corpus.made_up == ["ngrams", "responses"]
    assert corpus.usage == listed.usage == scanned.usage
    assert recorded.made_up == []
    for demand in found:
        assert (demand.units, demand.usage.calls) == (8, 8 * CANDIDATES)
        assert demand.usage.prompt_tokens == pytest.approx(recorded.usage.prompt_tokens, rel=0.35)


def test_no_function_is_asked_and_units_are_those_of_the_run_file(place: Path) -> None:
    box = {"call": "no_such_module:f", "units": 5}
    for units, count in (("all", 10), (3, 6), ({"black_box:gone": [4, 4]}, 2)):
        config = configured(place, "gone", units=units)
        subject = config.subject.model_copy(
            update={"modules": ["black_box:gone"], "black_boxes": {"gone": config.subject.black_boxes["near"].model_copy(update=box)}}
        )  # fmt: skip
        found = demands(config.model_copy(update={"subject": subject}), STAGES)
        assert [demand.units for demand in found] == [count, count]
        assert all(demand.usage.calls for demand in found)


def test_a_sample_of_the_units_stands_for_all(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.commands.demands, "ENOUGH", 1)
    config = configured(place, "sampled")
    explain, synthesize = demands(config, STAGES)
    assert (explain.rendered, explain.usage.calls) == (1, 14 * CANDIDATES)
    assert (synthesize.rendered, synthesize.usage.calls) == (1, 14 * CANDIDATES * 6)


def test_the_table_names_evaluations_and_no_recorder(place: Path) -> None:
    embedded = {"explainer": "embedded", "synthesizer": "retrieved", "explain_engine": None, "synthesize_engine": None}
    printed = estimate_table(configured(place, "table", **embedded), STAGES)
    rows = dict(line.rsplit("  ", 1) for line in printed.splitlines() if "  " in line)
    found = {name.strip(): value.strip() for name, value in rows.items()}
    assert found["units explained by n-grams"] == "14, with 0 null units"
    assert found["n-grams evaluated by black boxes"] == found["n-grams evaluated by the subject"] == "200 at most"
    assert found["texts for and against explanations"] == f"{14 * CANDIDATES * 2 * TEXTS:,} at most"
    assert "recorder" not in printed
    assert "no requests" in printed
    in_context = estimate_table(configured(place, "table", reading="in_context", **embedded), STAGES)
    assert "n-grams evaluated by the subject" not in in_context
    assert "forward passes for n-grams in context" in in_context
    recorded = estimate_table(configured(place, "table", reading="recorded", **embedded), STAGES)
    assert "n-grams evaluated by black boxes" in recorded
    assert "n-grams evaluated by the subject" not in recorded
    assert "forward passes for n-grams" not in recorded
