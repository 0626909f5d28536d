"""Explanations by a language model that is also shown texts to which the unit does not respond."""

from dataclasses import replace
from typing import Literal

import pytest

from stages.evidence import Detail, Evidence, Pair
from stages.explain.explain_units import Candidate, ExplanationError
from tests.stages.explain.scripted import ScriptedEngine, ever_shorter, evidence, explained, says, text

PROMPT_ID, NOTED_PROMPT_ID = "explain/contrastive.v1", "explain/contrastive.v2"
STRONG = text("the river bank", {"bank": 9.0}, seq_id=1)
UNIT = evidence(
    STRONG,
    text("a steep bank", {"bank": 8.0}, seq_id=2),
    text("the weather was fine", {}, "random", 3),
    text("a bank lent money", {}, "quantile", 4),
    text("the bank again", {"bank": 5.0}, "random", 5),
)


def explain(
    engine: ScriptedEngine, unit: Evidence = UNIT, negatives: Literal["look_alikes", "hard"] = "look_alikes"
) -> list[Candidate]:
    return explained("contrastive", engine, unit, candidates=2, negatives=negatives)


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


HARD = replace(
    UNIT,
    negatives=[
        text("near one", {"one": 1.7}, "similar", 10),
        text("near two", {"two": 1.9}, "similar", 11),
        text("near three", {}, "similar", 12),
        text("theirs four", {}, "neighbour", 13),
        text("theirs five", {"five": -9.0}, "neighbour", 14),
        text("theirs six", {}, "neighbour", 15),
    ],
)


def test_hard_negatives_take_the_place_of_look_alikes_one_kind_after_the_other() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    explain(engine, HARD, "hard")
    assert engine.question.split("does not respond to:\n")[1].split("\n\n")[0].splitlines() == [
        "1.  near one", "2.  theirs four", "3.  near three", "4.  theirs five", "5.  theirs six",
    ]  # fmt: skip


def test_a_unit_without_hard_negatives_has_no_look_alikes_in_their_place() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    explain(engine, UNIT, "hard")
    assert "does not respond" not in engine.question


def test_hard_negatives_are_not_shown_unless_they_are_asked_for() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    explain(engine, HARD)
    assert "near" not in engine.question


def test_pairs_stand_below_the_texts_and_not_below_the_counter_examples() -> None:
    engine = ScriptedEngine(says("the edge of a river"))
    (candidate,) = explain(engine, replace(HARD, details={1: Detail(None, [Pair(1, 2, 1.0)])}), "hard")
    assert candidate.prompt_id == NOTED_PROMPT_ID
    strong, others = engine.question.split("Similar texts")
    assert strong == 'Texts of neuron 4:\n1.  the river «bank»\n   " river" -> " bank"\n2.  a steep «bank»\n\n'
    assert "->" not in others
    for message in engine.asked[0].messages[1:-1:2]:
        shown, others = message.content.split("Similar texts")
        assert '" -> "' in shown
        assert "«" not in others
