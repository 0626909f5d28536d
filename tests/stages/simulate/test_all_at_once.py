"""All numbers in one pass: the prompt, packing, what becomes of the probabilities, and the real model against plain reading."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.llm.engine import NUMBERS, NumberPrompt, NumberScores
from pipeline.llm.in_process import InProcessEngine
from pipeline.llm.prompt_encoder import PromptEncoder
from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.simulate.read_numbers import number_prompt
from stages.simulate.simulation import Simulation
from tests.stages.simulate.doubles import DoubleEngine, certain, simulator
from tests.tiers import examples

HOSTILE = ["\n", "\t", "", "<4>", "<2>", "<|im_end|>", "\ufffd", "a\t7\nb", " 10", "19", "$", "\\n", " of", "é"]
TOKENS = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=12)


def passage(explanation: str, sequences: Sequence[Sequence[str]]) -> NumberPrompt:
    return number_prompt(Prompt("simulate/all_at_once.v2"), explanation, sequences)


def simulate(engine: DoubleEngine, sequences: Sequence[Sequence[str]], pack: int = 1) -> list[Simulation]:
    return asyncio.run(simulator("all_at_once", engine, pack).simulate("x", sequences))


def by_turns(*scores: NumberScores) -> DoubleEngine:
    prepared = iter(scores)
    return DoubleEngine(score=lambda _: next(prepared))


def spelled(asked: NumberPrompt) -> NumberScores:
    """At each slot the number of characters of the token in front of it, as shown."""
    return certain(*(min(10, len(asked.reply[slot - 1].rstrip("\t"))) for slot in asked.slots))


def test_the_expected_value_is_the_mean_over_the_numbers() -> None:
    even = NumberScores(np.full((1, 11), 1 / 11, dtype=np.float32), np.array([0.5], dtype=np.float32))
    results = simulate(by_turns(certain(0, 10, 3), even), [["a", "b", "c"], ["d"]])
    assert results[0].expected is not None
    assert results[0].expected.tolist() == [0.0, 10.0, 3.0]
    assert results[1].expected == pytest.approx([5.0])
    assert results[1].coverage == pytest.approx([0.5])


def test_without_a_number_there_is_no_value_but_a_reason() -> None:
    engine = by_turns(certain(1, 2, coverage=0.0), NumberScores(None, None, "too long"), certain(4))
    results = simulate(engine, [["a", "b"], ["a"], ["b"]])
    assert [(result.expected is None, result.error) for result in results] == [
        (True, "no number found at 2 of 2 tokens"),
        (True, "too long"),
        (False, ""),
    ]


def test_a_failed_pack_is_halved_until_only_the_bad_sequence_has_no_result() -> None:
    def score(asked: NumberPrompt) -> NumberScores:
        bad = any(piece.startswith("bad") for piece in asked.reply)
        return NumberScores(None, None, "refused", 5) if bad else spelled(asked)

    sequences = [["a"], ["bb", "c"], ["ddd"], ["bad"], ["ee"], ["f", "g"], ["hhhh"]]
    engine = DoubleEngine(score=score)
    results = simulate(engine, sequences, pack=5)
    assert [result.error for result in results] == ["", "", "", "refused", "", "", ""]
    values = [result.expected.tolist() for result in results if result.expected is not None]
    assert values == [[1.0], [2.0, 1.0], [3.0], [2.0], [1.0, 1.0], [4.0]]
    assert sum(result.prompt_tokens for result in results) == sum(5 if score(p).error else 7 for p in engine.passages)
    assert engine.score_calls == 4


def test_a_sequence_without_numbers_in_a_pack_is_tried_again_with_fewer() -> None:
    def score(asked: NumberPrompt) -> NumberScores:
        later = asked.slots[1:]
        return NumberScores(
            np.eye(11, dtype=np.float32)[[5] * len(asked.slots)],
            np.array([0.5, *[0.0 for _ in later]], dtype=np.float32),
        )

    engine = DoubleEngine(score=score)
    results = simulate(engine, [["a"], ["b"], ["c"]], pack=3)
    assert [result.error for result in results] == ["", "", ""]
    assert [len(asked.slots) for asked in engine.passages] == [3, 2, 1]


@given(sequences=st.lists(TOKENS.filter(bool), min_size=1, max_size=7), pack=st.integers(1, 7))
def test_each_number_returns_to_its_own_token_however_sequences_are_packed(
    sequences: list[list[str]], pack: int
) -> None:
    alone = simulate(DoubleEngine(score=spelled), sequences)
    packed = simulate(DoubleEngine(score=spelled), sequences, pack)
    for tokens, one, many in zip(sequences, alone, packed, strict=True):
        assert one.expected is not None
        assert many.expected is not None
        assert len(tokens) == len(one.expected)
        assert one.expected.tolist() == many.expected.tolist()


@settings(max_examples=examples(300))
@given(tokens=TOKENS)
def test_every_token_has_one_line_and_one_slot_whatever_it_holds(tokens: list[str]) -> None:
    asked = passage("x", [tokens])
    lines = "".join(asked.reply).split("<4>\n")[1].split("\n")
    assert len(asked.slots) == len(tokens) == len(lines) - 1
    assert [asked.reply[slot] for slot in asked.slots] == ["\n"] * len(tokens)
    assert [asked.reply[slot - 1] for slot in asked.slots] == lines[:-1]
    for token, line in zip(tokens, lines, strict=False):
        assert line.endswith("\t") != token[-1:].isalpha()
        assert not line.startswith("<4>")


def test_a_slot_stands_right_behind_its_own_token_in_every_sequence_of_a_pack() -> None:
    asked = passage("x", [[" one"], [" two", "3"], [" four"]])
    assert [asked.reply[slot - 1] for slot in asked.slots] == [" one", " two", "3\t", " four"]
    assert "".join(asked.reply).count("<4>\n") == 3


def test_each_further_sequence_stands_behind_lines_that_show_values() -> None:
    text = "".join(passage("x", [["a"]] * 4).reply)
    between = text.split("<4>\na\n")
    assert [part.splitlines()[0] for part in between[1:4]] == ["<2>", "<3>", "<1>"]
    assert all(line[-1].isdigit() for part in between[1:4] for line in part.splitlines()[1:])


def test_the_prompt_shows_only_the_explanation_and_the_tokens_of_the_target() -> None:
    asked = passage("words\nabout\trivers", [[" of"]])
    assert asked.messages[-1].content == "Neuron 4 responds to words about rivers"
    assert "".join(asked.reply) == "\n<4>\n of\n"
    assert all("words about rivers" not in message.content for message in asked.messages[:-1])


def test_what_comes_before_the_explanation_is_the_same_for_all_units() -> None:
    one, other = passage("rivers", [[" of"]]), passage("verbs", [["a", "b"], ["c"]])
    assert one.messages[:-1] == other.messages[:-1]
    assert len(one.messages) == 8


def test_few_shot_values_are_left_out_up_to_a_point_and_then_shown() -> None:
    records = [m.content.split(">\n")[1].splitlines() for m in passage("x", []).messages if m.role == "assistant"]
    assert len(records) == 3
    for lines in records:
        shown = [line[-1].isdigit() for line in lines]
        revealed = shown.index(True)
        assert revealed > 0
        assert all(shown[revealed:])
        assert {int(line.split("\t")[-1].lstrip("abcdefghijklmnopqrstuvwxyzTS ")) for line in lines[revealed:]} <= set(
            NUMBERS
        )


@pytest.mark.slow
def test_the_real_model_batched_and_cached_equals_plain_reading(smollm2: LoadedModel) -> None:
    """The whole prompt; "10" is two tokens here, so the "1" at a slot is followed by a second plain pass."""
    sequences = [[" the", " river", "<|im_end|>"], [" a", " boat", " sank", " near", "\n"], [" 10", "\t", " of", ""]]

    async def found_after_others() -> list[Simulation]:
        reading = simulator("all_at_once", InProcessEngine(smollm2), 1)
        await reading.simulate("anything else", [[" warm", " up"]])
        return await reading.simulate("rivers and boats", sequences)

    found = asyncio.run(found_after_others())
    encoder = PromptEncoder(smollm2.tokenizer)
    asked = passage("rivers and boats", sequences[:1])
    ids = list(encoder.conversation(asked.messages).ids)
    pieces = encoder.reply(asked.reply)
    digits = [encoder.encode(str(number))[0] for number in range(10)]
    places = [len(ids) + sum(map(len, pieces[:slot])) - 1 for slot in asked.slots]
    whole = ids + [token for piece in pieces for token in piece]
    chances = plain(smollm2, whole)[places]  # (T, V)
    last = plain(smollm2, [*whole[: places[-1] + 1], digits[1]])[-1, digits[0]]
    numbers = torch.cat([chances[-1, digits], chances[-1, digits[1:2]] * last])
    numbers[1] *= 1 - last
    assert found[0].expected is not None
    assert found[0].coverage is not None
    np.testing.assert_allclose(found[0].coverage, chances[:, digits].sum(dim=1), atol=1e-4)
    assert found[0].expected[-1] == pytest.approx(float((numbers * torch.arange(11)).sum() / numbers.sum()), abs=1e-3)


@pytest.mark.slow
def test_the_real_model_gives_the_first_of_a_pack_what_it_gives_it_alone(smollm2: LoadedModel) -> None:
    engine = InProcessEngine(smollm2)
    sequences = [[" the", " river"], [" a", " boat", " sank", " near", "\n"], [" 10"]]
    packed = asyncio.run(simulator("all_at_once", engine, 3).simulate("boats", sequences))
    alone = asyncio.run(simulator("all_at_once", engine, 1).simulate("boats", sequences))
    assert [len(result.expected) for result in packed if result.expected is not None] == [2, 5, 1]
    assert packed[0].expected == pytest.approx(alone[0].expected, abs=1e-3)


def plain(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = loaded.model(torch.tensor([ids])).logits[0]
    return logits.softmax(dim=1)
