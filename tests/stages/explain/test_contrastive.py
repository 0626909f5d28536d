"""Explanations by a language model that is also shown texts to which the unit does not respond."""

import asyncio

import pytest

from pipeline.evidence import Evidence
from stages.explain.base import Candidate, ExplanationError
from stages.explain.contrastive import PROMPT_ID, ContrastiveExplainer
from tests.stages.explain.scripted import ScriptedEngine, ever_shorter, evidence, says, text

STRONG = text("the river bank", {"bank": 9.0}, seq_id=1)
UNIT = evidence(
    STRONG,
    text("a steep bank", {"bank": 8.0}, seq_id=2),
    text("the weather was fine", {}, "random", 3),
    text("a bank lent money", {}, "quantile", 4),
    text("the bank again", {"bank": 5.0}, "random", 5),
)


def explain(engine: ScriptedEngine, unit: Evidence = UNIT) -> list[Candidate]:
    return asyncio.run(ContrastiveExplainer(engine, 2).explain(unit, seed=1))


def test_look_alikes_stand_apart_and_without_marks() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    (candidate,) = explain(engine)
    assert (candidate.text, candidate.prompt_id, candidate.dropped) == ("the edge of a river", PROMPT_ID, "")
    assert engine.question == (
        "Texts of neuron 4:\n1.  the river «bank»\n2.  a steep «bank»\n\n"
        "Similar texts that neuron 4 does not respond to:\n1.  a bank lent money\n2.  the weather was fine\n\n"
        "Explanation of neuron 4:"
    )


def test_every_few_shot_neuron_has_texts_of_both_kinds() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    explain(engine)
    for message in engine.asked[0].messages[1:-1:2]:
        strong, others = message.content.split("does not respond to:\n")
        assert "«" in strong
        assert len(others.split("\n\n")[0].splitlines()) >= 2
        assert "«" not in others


def test_a_unit_without_look_alikes_is_asked_about_without_them() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    (candidate,) = explain(engine, evidence(STRONG))
    assert engine.question == "Texts of neuron 4:\n1.  the river «bank»\n\nExplanation of neuron 4:"
    assert candidate.dropped == ""


def test_json_is_asked_for_where_the_engine_sees_to_schemas() -> None:
    engine = ScriptedEngine(says('{"explanation": "the edge of a river"}'), json_schema=True)
    assert [candidate.text for candidate in explain(engine)] == ["the edge of a river"]
    assert engine.asked[0].schema is not None


def test_a_long_prompt_loses_look_alikes_first_then_few_shot_neurons_and_then_exemplars() -> None:
    top = [text("so " * 40 + f"w{n}", {f"w{n}": 9.0 - n / 9}, seq_id=n) for n in range(2)]
    low = [text("ah " * 40 + "so x", {}, "random", seq_id=6), text("ah " * 40 + "y", {}, "random", seq_id=5)]
    dropped: list[str] = []
    for candidate, engine in ever_shorter(lambda engine: explain(engine, evidence(*top, *low)), "edges of rivers"):
        assert (" x\n" in engine.question, " y\n" in engine.question) == [
            (True, True), (True, False), (False, False),
        ][min(len(dropped), 2)]  # fmt: skip
        dropped.append(candidate.dropped)
    assert dropped == [
        "",
        "1 counter-example",
        "2 counter-examples",
        "2 counter-examples, 1 few-shot example",
        "2 counter-examples, 2 few-shot examples",
        "2 counter-examples, 3 few-shot examples",
        "2 counter-examples, 3 few-shot examples, 1 exemplar",
    ]


def test_a_unit_without_an_active_exemplar_is_not_asked_about() -> None:
    engine = ScriptedEngine(says("thing"))
    with pytest.raises(ExplanationError, match="no exemplar"):
        explain(engine, evidence(text("all quiet", {})))
    assert engine.asked == []
