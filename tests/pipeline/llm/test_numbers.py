"""Probabilities of numbers that are sequences of tokens, against sums over all sequences."""

import itertools

import numpy as np

from pipeline.llm.prompt_encoder import NumberTokens

# A made-up tokenizer over the tokens 0..3: numbers of one, two and three tokens, some beginning others.
IDS = ((0,), (1,), (1, 0), (1, 2), (1, 0, 3), (2, 2), (2, 3), (3,), (0, 1), (2, 1), (2, 0))
BEGINNINGS = ((0,), (1,), (2,), (1, 0))


def test_each_number_gets_the_sequences_that_begin_with_it_and_with_no_longer_number() -> None:
    rng = np.random.default_rng(0)
    chances = {text: rng.dirichlet(np.ones(4)) for n in range(3) for text in itertools.product(range(4), repeat=n)}
    expected = np.zeros(11)
    for text in itertools.product(range(4), repeat=3):
        probability = np.prod([chances[text[:place]][text[place]] for place in range(3)])
        begun = [number for number, ids in enumerate(IDS) if text[: len(ids)] == ids]
        if begun:
            expected[max(begun, key=lambda number: len(IDS[number]))] += probability
    reads = np.log(np.array([[chances[beginning] for beginning in ((), *BEGINNINGS)]]))  # (1, 1 + N, 4)
    found = np.exp(NumberTokens(IDS, BEGINNINGS, (0, 1, 2, 3)).numbers(reads))
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
