"""The word simulator on planted units, and on whatever input."""

import asyncio

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.subjects.embedder import Embedder, Vectors
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.simulate.simulation import SCALE
from stages.simulate.word.word_simulator import Meaning, WordSimulator
from tests.benchmarks.planted import UNITS, Planted
from tests.stages.simulate.word.prose import PROSE
from tests.tiers import examples


def correlation(unit: Planted, explanation: str, texts: list[list[str]], simulator: WordSimulator) -> float:
    true = np.concatenate([unit.activations(tokens) for tokens in texts])
    expected = np.concatenate(
        [s.expected for s in asyncio.run(simulator.simulate(explanation, texts)) if s.expected is not None]
    )
    return float(np.corrcoef(true, expected)[0, 1]) if expected.std() > 0 else 0.0


@pytest.fixture(scope="module")
def texts(smollm2: LoadedModel) -> list[list[str]]:
    tokenizer = smollm2.tokenizer
    return [[tokenizer.decode([i]) for i in tokenizer(text)["input_ids"]] for text in PROSE]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "true_floor"), [("by_both", 0.7), ("by_embedding", 0.65)])
def test_planted_units_are_told_apart(
    name: str, true_floor: float, texts: list[list[str]], request: pytest.FixtureRequest
) -> None:
    simulator: WordSimulator = request.getfixturevalue(name)
    units = [unit for unit in UNITS if sum(unit.activations(tokens).any() for tokens in texts) >= 2]
    assert len(units) >= 24
    true = [correlation(unit, unit.explanation, texts, simulator) for unit in units]
    control = [
        correlation(unit, units[(place + step) % len(units)].explanation, texts, simulator)
        for place, unit in enumerate(units)
        for step in (1, 7)
    ]
    inverted = [correlation(unit, unit.opposite, texts, simulator) for unit in units]
    assert np.mean(true) > true_floor
    assert min(true) > 0.2
    assert np.mean(control) < 0.1
    assert max(inverted) < 0.05


@pytest.mark.slow
def test_the_language_model_helps(by_both: WordSimulator, by_embedding: WordSimulator, texts: list[list[str]]) -> None:
    units = [unit for unit in UNITS[:16] if any(unit.activations(tokens).any() for tokens in texts)]
    both, alone = (
        np.mean([correlation(unit, unit.explanation, texts, simulator) for unit in units])
        for simulator in (by_both, by_embedding)
    )
    assert both > alone


@pytest.mark.slow
def test_the_same_input_gives_the_same_values_in_any_company(by_both: WordSimulator, texts: list[list[str]]) -> None:
    together = asyncio.run(by_both.simulate("words about music", texts[:6]))
    for tokens, simulation in zip(texts[:6], together, strict=True):
        (alone,) = asyncio.run(by_both.simulate("words about music", [tokens]))
        assert alone.expected is not None
        assert simulation.expected is not None
        np.testing.assert_array_equal(alone.expected, simulation.expected)


def test_an_empty_explanation_is_an_error_and_not_a_zero(by_embedding: WordSimulator) -> None:
    for explanation in ("", " \n\t"):
        (simulation,) = asyncio.run(by_embedding.simulate(explanation, [["a", " b"]]))
        assert simulation.expected is None
        assert simulation.coverage is None
        assert "empty" in simulation.error


EXPLANATIONS = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            ['"of"', "“", '"', "'", "`", "words", "after", "before", "not", "except", ",", ";", "and", "(", ")", "numbers", "-ing",
             "ending in", "inside", "quotes", "the last token of", "first", "sentence", "anything", "but", "colours", "\n", "such as"]
        ),
        max_size=12,
    ).map(" ".join),
)  # fmt: skip
TOKENS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "\n\n",
            " the",
            "of",
            "\ufffd",
            '"',
            " (",
            ").",
            "'s",
            " 1",
            "9",
            " Paris",
            "\x00",
            "\u2028",
            "­",
        ]
    ),
    st.text(max_size=5),
)


@settings(deadline=None, max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(explanation=EXPLANATIONS, sequences=st.lists(st.lists(TOKENS, max_size=12), max_size=3))
def test_any_input_gives_finite_values_of_the_right_length(
    by_embedding: WordSimulator, explanation: str, sequences: list[list[str]]
) -> None:
    simulations = asyncio.run(by_embedding.simulate(explanation, sequences))
    assert len(simulations) == len(sequences)
    for tokens, simulation in zip(sequences, simulations, strict=True):
        if simulation.expected is None or simulation.coverage is None:
            assert not explanation.strip()
            continue
        assert simulation.expected.shape == simulation.coverage.shape == (len(tokens),)
        assert simulation.expected.dtype == np.float32
        assert np.isfinite(simulation.expected).all()
        assert (simulation.expected >= 0).all()
        assert (simulation.expected <= SCALE).all()
        assert (simulation.coverage == 1).all()


@pytest.mark.parametrize(
    "explanation",
    [
        "x" * 10_000,
        '"' * 10_000,
        "words after " * 900,
        '"of", ' * 2000,
        "日本語 🙂 \ufffd",
        "???",
        "(" * 5000,
        "not " * 2500,
        "\x00",
    ],
)
def test_strange_explanations_are_read_within_a_second(by_both: WordSimulator, explanation: str) -> None:
    import time

    tokens = [" the", " end", " of", "\ufffd", "", "\n"]
    start = time.process_time()
    (simulation,) = asyncio.run(by_both.simulate(explanation, [tokens]))
    assert time.process_time() - start < 5
    assert simulation.expected is not None
    assert simulation.expected.shape == (6,)


def test_memory_is_capped(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.simulate.word.word_simulator.COMMON", 100)
    monkeypatch.setattr("stages.simulate.word.word_simulator.MOST_WORDS", 20)
    monkeypatch.setattr("stages.simulate.word.word_simulator.MOST_PHRASES", 3)
    meaning, encode = Meaning(embedder), Embedder.encode
    asked: list[str] = []

    def listening(embedder: Embedder, texts: list[str]) -> Vectors:
        asked.extend(texts)
        return encode(embedder, texts)

    def embedded(number: int) -> set[str]:
        """What is embedded for another phrase and five other words."""
        asked.clear()
        meaning.values(f"things of kind {number}", [f"word{letter}{number}" for letter in "abcde"])
        return set(asked)

    monkeypatch.setattr(Embedder, "encode", listening)
    first = embedded(0)
    assert not embedded(0)
    for number in range(1, 12):
        embedded(number)
    assert not embedded(11)
    assert embedded(0) == {text for text in first if "0" in text}
