"""What record.details finds out reaches the prompt of an explainer: through the stages, with an engine that keeps what it is asked."""

from pathlib import Path
from typing import Any

import pytest

import stages.asking
from pipeline.config import RunConfig
from pipeline.execution.stage import Context
from pipeline.schemas import DETAILS
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.evidence import Evidence, RecordedUnits
from stages.explain.explain_units import EXPLAIN
from stages.explain.marked_texts import token_names
from stages.units import chosen_units
from tests.pipeline.asked import Asked
from tests.stages.record.small_run import run_stages, small_config, small_subject

MLP, HEADS = "layers.0.mlp", "layers.1.attn"
STAGES = ("corpus", "record.scan", "record.merge", "record.weights", "record.details", "explain")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    small_subject(folder)
    return folder


def explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, record: dict[str, Any], name: str
) -> tuple[RunConfig, Asked]:
    """A run up to its explanations, and the engine that was asked for them."""
    model = str(folder / "model")
    engine = Asked(load_tokenizer(model), lambda request, number: '{"explanation": "words of a kind"}')
    monkeypatch.setattr(stages.asking, "load_engine", lambda config, context: engine)
    asks = {"model": "large", "base_url": "http://127.0.0.1:9/v1", "tokenizer": model}
    explain = {"explainer": "max_activation", "candidates": 1, "engine": asks}
    config = small_config(folder, record, explain, (MLP, HEADS), name)
    run_stages(config, STAGES)
    return config, engine


def evidence(config: RunConfig, module: str) -> list[Evidence]:
    indices = chosen_units(config, Tables(config.root))[module]
    return RecordedUnits(Context(config, EXPLAIN)).evidence(module, indices, "+")


def strongest_pairs(unit: Evidence) -> list[str]:
    """The line of the strongest pair of each text that has details."""
    lines = []
    for exemplar in unit.exemplars:
        detail = unit.details.get(exemplar.seq_id)
        if detail is not None and detail.pairs and exemplar.band == "top":
            best, names = max(detail.pairs, key=lambda pair: pair.value), token_names(exemplar.tokens)
            lines.append(f"{names[best.source]} -> {names[best.target]}")
    return lines


def test_a_prompt_shows_what_the_peak_depends_on_and_for_heads_their_pairs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, engine = explained(folder, monkeypatch, {"attribution": "occlusion", "pairs": 6}, "detailed")
    details = Tables(config.root).read(DETAILS).to_pylist()
    assert {row["module"] for row in details if any(row["attribution"])} == {MLP, HEADS}
    heads = [unit for unit in engine.questions if " -> " in unit]
    assert len(engine.questions) == 4
    assert len(heads) == 2, "neurons move nothing"
    assert all("depends on" in question for question in engine.questions)
    for unit in evidence(config, HEADS):
        lines = strongest_pairs(unit)
        assert lines
        assert any(all(line in question for line in lines) for question in heads)


def test_a_prompt_without_details_shows_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, engine = explained(folder, monkeypatch, {"pairs": 0}, "bare")
    assert Tables(config.root).read(DETAILS).num_rows == 0
    assert len(engine.questions) == 4
    assert not [question for question in engine.questions if " -> " in question or "depends on" in question]
