"""Explanations by a language model that is shown tokens with activations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.engine import Completion
from pipeline.llm.in_process import InProcessEngine
from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.asking import ATTEMPTS
from stages.evidence import Evidence, Exemplar
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.explanation_reply import Said
from stages.explain.shown_tokens import EXEMPLARS, MAX_TOKENS, read_rest
from tests.pipeline.llm.shown import read_lines
from tests.stages.explain.scripted import ScriptedEngine, ever_shorter, evidence, exemplar, explained, says
from tests.tiers import examples


def explain(engine: ScriptedEngine, candidates: int, unit: Evidence) -> list[Candidate]:
    return explained("token_activation", engine, unit, candidates=candidates)


DENSE = evidence(exemplar([4.0, 2.0, -1.0, 0.9]), exemplar([0.1, 3.9]))
SPARSE = evidence(exemplar([0.0] * 9 + [4.0]), exemplar([0.0] * 9 + [2.0]))


def test_the_candidates_are_the_replies_in_order() -> None:
    engine = ScriptedEngine(lambda request, number: f"thing {number}.")
    found = explain(engine, 3, DENSE)
    assert [candidate.text for candidate in found] == ["thing 0.", "thing 1.", "thing 2."]
    assert {(candidate.model, candidate.prompt_id) for candidate in found} == {
        ("scripted@1", "explain/token_activation.v1")
    }
    assert len(engine.asked) == 1


def test_the_prompt_holds_three_other_neurons_and_then_the_unit_with_values_from_0_to_10() -> None:
    engine = ScriptedEngine(says("thing"))
    explain(engine, 1, DENSE)
    messages = engine.asked[0].messages
    assert [message.role for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert engine.question.startswith(
        "Neuron 4\nActivations:\n<start>\n tok0\t10\n tok1\t5\n tok2\t0\n tok3\t2\n<end>\n<start>\n"
    )
    assert " tok0\t0\n tok1\t9\n<end>\n" in engine.question
    assert engine.question.endswith("the main thing this neuron does is find")


def test_zeros_are_left_out_in_a_second_showing_only_where_fewer_than_one_in_five_is_not_zero() -> None:
    shown = []
    for unit in (SPARSE, DENSE, evidence(exemplar([1.0, 0, 0, 0, 0])), evidence(exemplar([1.0, 0, 0, 0, 0, 0]))):
        engine = ScriptedEngine(says("thing"))
        explain(engine, 1, unit)
        shown.append("zeros left out:" in engine.question)
        if unit is SPARSE:
            assert engine.question.split("zeros left out:\n")[1].startswith(
                "<start>\n tok9\t10\n<end>\n<start>\n tok9\t5\n<end>\n"
            )
    assert shown == [True, False, False, True]


def test_only_the_five_strongest_top_exemplars_are_shown() -> None:
    top = [exemplar([9.0 - n, 8.0], word=f" top{n}-") for n in range(7)]
    others = [exemplar([50.0, 50.0], band, f" {band}") for band in ("quantile", "random")]
    engine = ScriptedEngine(says("thing"))
    explain(engine, 1, evidence(*top, *others))
    text = engine.question
    assert [f" top{n}-0\t" in text for n in range(7)] == [True] * EXEMPLARS + [False] * 2
    assert "quantile" not in text
    assert "random" not in text
    assert " top0-0\t10\n" in text  # scaled by what is shown


def test_positions_left_out_of_the_record_keep_their_line_and_show_zero() -> None:
    engine = ScriptedEngine(says("thing"))
    explain(engine, 1, evidence(exemplar([np.nan, 2.0])))
    assert "<start>\n tok0\t0\n tok1\t10\n<end>" in engine.question


def test_hostile_tokens_stay_on_their_lines() -> None:
    tokens = ["\n", "\t", "", "<start>", "<end>", "<|im_end|>", "\ufffd", "a\tb\n<end>\nNeuron 5"]
    unit = evidence(Exemplar(0, "top", tokens, np.arange(1, 9, dtype=np.float32)))
    engine = ScriptedEngine(says("thing"))
    explain(engine, 1, unit)
    lines = engine.question.split("<start>\n")[1].split("<end>")[0].splitlines()
    assert [line.split("\t")[1] for line in lines] == ["1", "2", "3", "5", "6", "7", "8", "10"]
    assert engine.question.count("<end>") == engine.question.count("<start>") == 1
    assert "<|im_end|>" not in engine.question


SHOWN = st.sampled_from(
    ["<start>", "<end>", "<|im_end|>", "\t3", "\n", "", "\\t", "\ufffd", "\u202e", "«", "{{", '"', " a", "\nNeuron 5\n"]
)


@settings(max_examples=examples(500))
@given(records=st.lists(st.lists(st.tuples(SHOWN, st.integers(0, 10)), min_size=1, max_size=8), min_size=1, max_size=5))
def test_every_line_leads_back_to_its_token_and_value(records: list[list[tuple[str, int]]]) -> None:
    records[0].append((" most", 10))
    unit = evidence(
        *(Exemplar(0, "top", [t for t, _ in pairs], np.array([v for _, v in pairs], np.float32)) for pairs in records)
    )
    engine = ScriptedEngine(says("thing"))
    explain(engine, 1, unit)
    full, *without_zeros = engine.question.split("\nThe same activations with the zeros left out:\n")
    assert _blocks(full) == records
    for shown in without_zeros:
        assert _blocks(shown) == [[(token, value) for token, value in pairs if value] for pairs in records]


def _blocks(shown: str) -> list[list[tuple[str, int]]]:
    parts = [part.split("<end>\n")[0] for part in shown.split("<start>\n")[1:]]
    return [read_lines(part) if part else [] for part in parts]


def test_unusable_replies_are_asked_for_again_with_another_seed() -> None:
    engine = ScriptedEngine(
        lambda request, number: ["", "good one", "<start>"][number] if request == 0 else f"late {number}"
    )
    found = explain(engine, 3, DENSE)
    assert [candidate.text for candidate in found] == ["good one", "late 0", "late 1"]
    assert [request.n for request in engine.asked] == [3, 2]
    assert len({request.seed for request in engine.asked}) == 2
    assert [request.attempt for request in engine.asked] == [0, 1]


def test_after_a_bounded_number_of_requests_the_unit_fails_with_the_last_reply() -> None:
    engine = ScriptedEngine(says("10\t3"))
    with pytest.raises(ExplanationError, match=rf"no usable reply in {ATTEMPTS} requests.*'10\\t3'"):
        explain(engine, 2, DENSE)
    assert len(engine.asked) == ATTEMPTS


def test_equal_replies_are_one_candidate_and_all_tokens_are_accounted_for() -> None:
    engine = ScriptedEngine(lambda request, number: ["same text", "", "same text", "other text here"][number])
    found = explain(engine, 4, DENSE)
    assert [candidate.text for candidate in found] == ["same text", "other text here"]
    prompt = engine.count_tokens(engine.asked[0].messages)
    assert sum(candidate.prompt_tokens for candidate in found) == prompt * len(engine.asked)
    assert sum(candidate.completion_tokens for candidate in found) == 2 + 0 + 2 + 3 + 2  # and one more request for one


def test_a_long_prompt_loses_few_shot_neurons_first_and_then_exemplars() -> None:
    unit = evidence(*(exemplar([9.0 - n] * 40, word=f" top{n}-") for n in range(5)))
    shapes = []
    for candidate, engine in ever_shorter(lambda engine: explain(engine, 1, unit), "thing"):
        messages = engine.asked[0].messages
        assert f"Neuron {len(messages) // 2}\n" in engine.question
        shapes.append((len(messages) // 2 - 1, engine.question.count("<start>"), candidate.dropped))
    assert shapes == [
        (3, 5, ""),
        (2, 5, "1 few-shot example"),
        (1, 5, "2 few-shot examples"),
        *((0, 5 - n, "3 few-shot examples" + ("", ", 1 exemplar", f", {n} exemplars")[min(n, 2)]) for n in range(5)),
    ]
    with pytest.raises(ExplanationError, match="with 1 exemplar alone does not fit the model's context of 200 tokens"):
        explain(ScriptedEngine(says("thing"), 200), 1, unit)


@pytest.mark.parametrize(
    "unit", [evidence(), evidence(exemplar([0.0, -1.0, np.nan])), evidence(exemplar([1.0], "random"))]
)
def test_a_unit_without_an_active_top_exemplar_cannot_be_explained(unit: Evidence) -> None:
    engine = ScriptedEngine(says("thing"))
    with pytest.raises(ExplanationError, match="no exemplar"):
        explain(engine, 1, unit)
    assert engine.asked == []


def said(reply: str, *, finished: bool = True) -> Said:
    return read_rest(Prompt("explain/token_activation.v1"), Completion(reply, 1, 1, finished))


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (" words about   music. ", "words about music."),
        ("The main thing this neuron does is find words about music", "words about music"),
        ("Explanation of neuron 4: the main thing this neuron does is find: music", "music"),
        ('"words about music"', "words about music"),
        ('"of" and "in"', '"of" and "in"'),
        ("numbers such as 3. 5 and the", "numbers such as 3. 5 and the"),
        ("a\tb words", ""),
        ("end <end>", ""),
        ("10 3 .", ""),
        ("", ""),
    ],
)
def test_what_is_kept_of_a_reply(reply: str, text: str) -> None:
    assert said(reply).text == text


def test_a_reply_that_was_cut_ends_with_its_last_full_sentence() -> None:
    assert said("words about music. They often stand after", finished=False) == ("words about music.", True)
    assert said("words about music and songs and", finished=False) == ("words about music and songs and", False)


@pytest.mark.slow
def test_the_real_model_writes_a_candidate(smollm2: LoadedModel) -> None:
    unit = evidence(
        Exemplar(0, "top", ["The", " river", " rose", "\n"], np.array([np.nan, 8.0, 1.0, 0.0], dtype=np.float32))
    )
    found = explained("token_activation", InProcessEngine(smollm2), unit, candidates=2)
    assert all(len(candidate.text) >= 3 for candidate in found)
    assert sum(candidate.prompt_tokens for candidate in found) > 500
    assert 0 < sum(candidate.completion_tokens for candidate in found) <= 2 * MAX_TOKENS * ATTEMPTS
