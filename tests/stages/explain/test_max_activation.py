"""Explanations by a language model that is shown texts with marked tokens."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.llm.engine import Message
from stages.evidence import Detail, Evidence, Pair
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.explanation_reply import SCHEMA
from stages.explain.question import MAX_TOKENS
from tests.stages.explain.scripted import ScriptedEngine, ever_shorter, evidence, explained, says, text

PROMPT_ID, NOTED_PROMPT_ID = "explain/max_activation.v1", "explain/max_activation.v2"
UNIT = evidence(
    text("the river rose\n", {"river": 9.0}, seq_id=1),
    text("a stream and a canal", {"stream": 8.0, "canal": 7.0}, seq_id=2),
    text("a weak pond", {"pond": 1.0}, seq_id=3),
)


def explain(engine: ScriptedEngine, unit: Evidence = UNIT, candidates: int = 2) -> list[Candidate]:
    return explained("max_activation", engine, unit, candidates=candidates)


def test_the_unit_follows_three_others_with_their_explanations() -> None:
    engine = ScriptedEngine(lambda request, number: f"thing {number}.")
    found = explain(engine)
    assert [candidate.text for candidate in found] == ["thing 0.", "thing 1."]
    assert {(candidate.model, candidate.prompt_id) for candidate in found} == {("scripted@1", PROMPT_ID)}
    assert [message.role for message in engine.asked[0].messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert engine.question == (
        "Texts of neuron 4:\n1.  the «river» rose\n2.  a «stream» and a «canal»\n\nExplanation of neuron 4:"
    )
    assert engine.asked[0].schema is None


def test_an_engine_that_sees_to_schemas_is_asked_for_json() -> None:
    engine = ScriptedEngine(says('{"explanation": "flowing water"}'), json_schema=True)
    assert [candidate.text for candidate in explain(engine)] == ["flowing water"]
    assert engine.asked[0].schema == SCHEMA
    assert engine.question.endswith("Explanation of neuron 4, as JSON:")
    answers = [message.content for message in engine.asked[0].messages if message.role == "assistant"]
    assert [list(json.loads(answer)) for answer in answers] == [["explanation"]] * 3


@pytest.mark.parametrize("explainer", ["max_activation", "contrastive", "token_activation"])
def test_a_context_shows_the_tokens_around_the_peak_alone(explainer: str) -> None:
    engine = ScriptedEngine(says("flowing water"))
    explained(explainer, engine, evidence(text("so the river rose high", {"river": 9.0}, seq_id=1)), context=3)
    assert all(word in engine.question for word in (" the", "river", " rose"))
    assert not any(word in engine.question for word in (" so", " high"))


def test_everything_before_the_unit_is_the_same_for_all_units() -> None:
    other = evidence(text("something else", {"else": 4.0}))
    for json_schema in (False, True):
        engine = ScriptedEngine(says("flowing water"), json_schema=json_schema)
        explain(engine)
        explain(engine, other)
        first, second = (request.messages for request in engine.asked)
        assert first[:-1] == second[:-1]
        assert first[-1] != second[-1]


def test_a_long_prompt_loses_few_shot_neurons_first_and_then_exemplars() -> None:
    unit = evidence(*(text("so " * 40 + f"w{n}", {f"w{n}": 9.0 - n / 9}, seq_id=n) for n in range(4)))
    shapes = []
    for candidate, engine in ever_shorter(lambda engine: explain(engine, unit), "flowing water"):
        messages = engine.asked[0].messages
        assert f"neuron {len(messages) // 2}:" in engine.question
        assert "«w0»" in engine.question
        shapes.append((len(messages) // 2 - 1, engine.question.count("«"), candidate.dropped))
    assert shapes == [
        (3, 4, ""),
        (2, 4, "1 few-shot example"),
        (1, 4, "2 few-shot examples"),
        (0, 4, "3 few-shot examples"),
        (0, 3, "3 few-shot examples, 1 exemplar"),
        (0, 2, "3 few-shot examples, 2 exemplars"),
        (0, 1, "3 few-shot examples, 3 exemplars"),
    ]


def test_a_unit_whose_smallest_prompt_does_not_fit_fails() -> None:
    with pytest.raises(ExplanationError, match="a prompt with 1 exemplar alone does not fit"):
        explain(ScriptedEngine(says("flowing water"), 200))


def test_a_model_that_only_completes_texts_is_stopped_before_a_neuron_of_its_own() -> None:
    engine = ScriptedEngine(says("flowing water"))
    explain(engine)
    (request,) = engine.asked
    headings = [message.content.splitlines()[0] for message in request.messages if message.role == "user"]
    assert all(any(f"\n{heading}".startswith(stop) for stop in request.stop) for heading in headings)
    assert request.max_tokens == MAX_TOKENS


def test_the_few_shot_texts_have_the_marks_of_real_ones() -> None:
    engine = ScriptedEngine(says("flowing water"))
    explain(engine)
    shots = [message for message in engine.asked[0].messages[1:-1] if message.role == "user"]
    for message in shots:
        for line in _texts(message):
            assert re.fullmatch(r"[^«»]*(«[^«»]+»[^«»]*)+", line)
            assert re.sub(r"\\n", "", line).count("\\") == 0


def _texts(message: Message) -> list[str]:
    lines = message.content.splitlines()[1:-2]
    assert [line.split(". ")[0] for line in lines] == [str(number) for number in range(1, len(lines) + 1)]
    return lines


NOTED = replace(
    UNIT,
    details={
        1: Detail(np.array([1.0, 9.0, 5.0]), [Pair(0, 1, 3.0), Pair(1, 1, 2.0)]),
        2: Detail(None, [Pair(1, 4, 9.0)]),
    },
    promoted=[" bed", "\n"],
)


def test_what_more_is_known_stands_below_the_texts() -> None:
    engine = ScriptedEngine(says("flowing water"))
    assert [candidate.prompt_id for candidate in explain(engine, NOTED)] == [NOTED_PROMPT_ID]
    assert engine.question == (
        "Texts of neuron 4:\n"
        '1.  the «river» rose\n   " the" -> " river"\n   " river" -> " river"\n   depends on " rose"\n'
        '2.  a «stream» and a «canal»\n   " stream" -> " canal"\n\n'
        'Tokens that neuron 4 makes more likely: " bed", "\\n"\n\n'
        "Explanation of neuron 4:"
    )


MARKS = {"pairs": '" -> "', "needs": "   depends on ", "promoted": "makes more likely: "}


@pytest.mark.parametrize("kind", MARKS)
def test_few_shot_neurons_show_what_is_known_of_the_unit_and_nothing_else(kind: str) -> None:
    detail = Detail(
        np.array([1.0, 9.0, 5.0]) if kind == "needs" else None, [Pair(0, 1, 3.0)] if kind == "pairs" else None
    )
    promoted = [" bed"] if kind == "promoted" else []
    engine = ScriptedEngine(says("flowing water"))
    explain(engine, replace(UNIT, details={1: detail}, promoted=promoted))
    system, *messages = engine.asked[0].messages
    for message in [message for message in messages if message.role == "user"]:
        assert {other for other, mark in MARKS.items() if mark in message.content} == {kind}
    told = {"pairs": "attention heads", "needs": '"depends on"', "promoted": "more likely to write next"}
    assert {other for other, words in told.items() if words in system.content} == {kind}


def test_a_unit_of_which_no_more_is_known_is_shown_as_before() -> None:
    engine = ScriptedEngine(says("flowing water"))
    bare = replace(UNIT, details={1: Detail(np.array([0.0, 9.0, 0.0]), []), 99: Detail(None, [Pair(0, 1, 1.0)])})
    assert [candidate.prompt_id for candidate in explain(engine, bare)] == [PROMPT_ID]
    assert engine.question == explain_question(UNIT)


def test_a_long_prompt_loses_texts_with_all_that_stands_below_them() -> None:
    shapes = [
        (engine.question.count("«"), engine.question.count("->"), engine.question.count("likely"))
        for _, engine in ever_shorter(lambda engine: explain(engine, NOTED), "flowing water")
    ]
    assert shapes == [(3, 3, 1)] * 4 + [(1, 2, 1)]


def explain_question(unit: Evidence) -> str:
    engine = ScriptedEngine(says("flowing water"))
    explain(engine, unit)
    return engine.question
