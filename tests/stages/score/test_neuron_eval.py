"""Missing and extra labels (Oikarinen et al. 2025): which scores fall where an explanation loses half of its labels, or gets wrong ones.

Run by itself it prints the table of docs/scores.md: `python -m tests.stages.score.test_neuron_eval`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from stages.score.corpus_scores import NAMES
from stages.score.score_units import SCORER_LIST
from stages.score.scorers import Explained
from tests.stages.score.coverage import explained
from tests.stages.score.neuron_eval import NEARLY_ALL, SPOILT, LabelledUnit, labelled_units

SCORES = ("correlation", "correlation_random", "r_squared", "absolute_deviation", *(f"{name}_corpus" for name in NAMES))
SEQUENCES = 2000
"""Of the split; a unit's concept makes up between RARE and COMMON of its tokens."""
RARE, COMMON = 0.001, 0.02
SIZES = ((10, 10), (10, 40), (10, 100), (10, SEQUENCES))
"""Top and random sequences that are kept; with the last, all of them."""
FALL = 0.1
"""A score falls where it loses more than this share of what the right explanation has: less does not tell two explanations apart."""


def scores(unit: LabelledUnit, which: str, top: int, random: int, seed: int) -> dict[str, float]:
    """All scores of an explanation of a unit on the sequences that are kept; the same ones for each explanation."""
    true, expected = unit.true.astype(np.float32), unit.predicted(which).astype(np.float32)
    true, expected = np.concatenate([true, true]), np.concatenate([expected, expected])  # select is as report
    one: Explained = explained(np.random.default_rng(seed), true, expected, top, random, fires_above=3.0)
    found: dict[str, float] = {}
    for scorer in SCORER_LIST:
        found |= scorer.score(one)
    return {name: found[name] for name in SCORES}


@dataclass(frozen=True)
class Falls:
    """What becomes of a score where labels are missing or wrong."""

    shares: dict[str, float]
    """By SPOILT, the share of units in which it falls; a score that is undefined does not."""
    lost: dict[str, float]
    """By SPOILT, the mean share of the right explanation's score that is lost."""


def falls(top: int, random: int, units: int = 100) -> dict[str, Falls]:
    """By score, that over some units."""
    lost: dict[str, dict[str, list[float]]] = {name: {which: [] for which in SPOILT} for name in SCORES}
    for seed, unit in enumerate(labelled_units(units, 0, RARE, COMMON, SEQUENCES)):
        right = scores(unit, "right", top, random, seed)
        for which in SPOILT:
            spoilt = scores(unit, which, top, random, seed)
            for name in SCORES:
                lost[name][which].append(1 - spoilt[name] / right[name])
    return {
        name: Falls(
            {which: float(np.mean(np.array(found) > FALL)) for which, found in of.items()},
            {which: float(np.nanmean(found)) for which, found in of.items()},
        )
        for name, of in lost.items()
    }


def passes(found: dict[str, Falls], names: Sequence[str]) -> list[str]:
    """Those that fall in nearly all units for both."""
    return [name for name in names if min(found[name].shares.values()) >= NEARLY_ALL]


@pytest.mark.slow
def test_scores_on_the_corpus_as_it_is_pass_with_as_many_random_sequences_as_words_get() -> None:
    on_the_corpus = [f"{name}_corpus" for name in NAMES]
    assert passes(falls(10, 40), on_the_corpus) == on_the_corpus


@pytest.mark.slow
def test_with_few_random_sequences_wrong_labels_show_in_the_corpus_scores_more_often_than_in_the_correlation() -> None:
    found = falls(10, 10)
    assert passes(found, ["correlation"]) == []
    for name in NAMES:
        assert found[f"{name}_corpus"].shares["extra"] > found["correlation"].shares["extra"] + 0.15


if __name__ == "__main__":
    for size in SIZES:
        for name, of in falls(*size).items():
            said = (f"{which} {of.shares[which]:.0%}, {of.lost[which]:.0%} lost" for which in SPOILT)
            print(*size, f"{name:20}", *said, flush=True)  # noqa: T201 - for the document
