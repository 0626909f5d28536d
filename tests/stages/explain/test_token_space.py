"""Explanations by a language model that is shown a list of tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evidence import Evidence, TopToken
from stages.explain.explain_units import Candidate, ExplanationError
from stages.explain.shown_tokens import TOKENS
from tests.pipeline.llm.shown import read_lines
from tests.stages.explain.scripted import ScriptedEngine, ever_shorter, evidence, explained, says
from tests.tiers import examples


def unit(*means: tuple[str, float]) -> Evidence:
    return evidence(top_tokens=[TopToken(token, mean, 5) for token, mean in means])


def explain(engine: ScriptedEngine, shown: Evidence) -> list[Candidate]:
    return explained("token_space", engine, shown, candidates=2)


def test_tokens_stand_on_lines_with_their_means_from_0_to_10() -> None:
    engine = ScriptedEngine(lambda request, number: f"thing {number}")
    found = explain(engine, unit((" rain", 4.0), ("\n", 2.0), ("<|im_end|>", 0.5), (" dry", 0.0), (" sun", -3.0)))
    assert [(candidate.text, candidate.prompt_id) for candidate in found] == [
        ("thing 0", "explain/token_space.v1"), ("thing 1", "explain/token_space.v1"),
    ]  # fmt: skip
    assert engine.question == ("Tokens of neuron 4:\n rain\t10\n\\n\t5\n\\x3c|im_end|>\t1\n\nExplanation of neuron 4:")


def test_few_shot_tokens_stand_on_lines_too() -> None:
    engine = ScriptedEngine(says("weather"), json_schema=True)
    explain(engine, unit((" rain", 4.0)))
    shots = engine.asked[0].messages[1:-1:2]
    assert len(shots) == 3
    for message in shots:
        values = [value for _, value in read_lines(message.content.split("\n", 1)[1].split("\n\n")[0])]
        assert values == sorted(values, reverse=True)
        assert values[0] == 10
    assert engine.asked[0].schema is not None


def test_a_long_prompt_loses_few_shot_neurons_first_and_then_the_weakest_tokens() -> None:
    shown = unit(*((f" t{n}", 90.0 - n) for n in range(TOKENS + 5)))
    seen = []
    for candidate, engine in ever_shorter(lambda engine: explain(engine, shown), "weather"):
        assert " t0\t10\n" in engine.question
        seen.append((engine.question.count("\t"), candidate.dropped))
    few = ["", "1 few-shot example", "2 few-shot examples", "3 few-shot examples"]
    fewer = [(left, f"3 few-shot examples, {TOKENS - left} tokens") for left in (*range(TOKENS - 10, 1, -10), 1)]
    assert seen == [*((TOKENS, dropped) for dropped in few), *fewer]


def test_a_unit_without_a_token_above_zero_is_not_asked_about() -> None:
    engine = ScriptedEngine(says("weather"))
    for shown in (unit(), unit((" rain", 0.0), (" sun", -1.0))):
        with pytest.raises(ExplanationError, match="no token of the explain split has a mean activation above zero"):
            explain(engine, shown)
    assert engine.asked == []


TOKEN = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["", "\t", "\n", "\t10\n x", "\\", "\ufffd", "<|im_end|>", "\u2028", "{{ x }}"]),
)


@settings(max_examples=examples(500))
@given(tokens=st.lists(TOKEN, min_size=1, max_size=8))
def test_any_tokens_can_be_read_back_from_the_prompt(tokens: list[str]) -> None:
    engine = ScriptedEngine(says("weather"))
    explain(engine, unit(*((token, 10.0 - place) for place, token in enumerate(tokens))))
    body = engine.question.removeprefix("Tokens of neuron 4:\n").removesuffix("\nExplanation of neuron 4:")
    assert read_lines(body) == [(token, 10 - place) for place, token in enumerate(tokens)]
