"""The benchmark tells methods that find concepts from methods that do not, and gives its modules what it says."""

import asyncio
import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from tests.benchmarks.recovery.concepts import Concept, load_concepts
from tests.benchmarks.recovery.figures import as_json, auc, figures
from tests.benchmarks.recovery.harness import Judged, Outcome, explain_all, modules_of
from tests.benchmarks.recovery.modules import (
    NOISE,
    NULLS,
    Array,
    ngrams_of,
    null_modules,
    planted_module,
    responses,
    shown_ngrams,
)

CONCEPTS = load_concepts()
FEW = CONCEPTS[:30]


class WordsEncoder:
    """A text is the sum of a random vector for each of its words, at length 1."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = [np.sum([self._word(word) for word in text.lower().split() or [""]], axis=0) for text in texts]
        return np.asarray([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(len(texts), 12)

    def _word(self, word: str) -> Array:
        return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(12)


@dataclass
class Told:
    """A method that says what it is told, and sees to it that the candidate at `best` wins."""

    explanations: list[str]
    best: int = 0
    p: float = 0.01

    async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
        assert all(first[1] >= second[1] for first, second in itertools.pairwise(ranked))
        return self.explanations

    async def texts(self, explanation: str, seed: int) -> tuple[list[str], list[str]]:
        return [explanation] * 4, ["nothing of the kind"] * 4

    def score(self, relevant: Array, baseline: Array, sigma: float) -> float:
        assert len(relevant) == len(baseline) == 2
        assert sigma > 0
        return float(relevant.mean() - baseline.mean()) / sigma

    def choose(self, scores: Sequence[float]) -> int:
        return min(self.best, len(scores) - 1)

    def p_value(self, judged: Sequence[Judged], winner: int, ngrams: Sequence[str], seed: int) -> float:
        return self.p


def outcomes(method: Told, concepts: Sequence[Concept], held_out: bool = False) -> list[Outcome]:
    modules = modules_of(concepts, WordsEncoder(), held_out)
    return asyncio.run(explain_all(modules, ["default"], [0], method, CONCEPTS))


def test_a_method_that_names_a_concept_finds_that_one_alone() -> None:
    rows = outcomes(Told([FEW[0].keyword]), FEW)
    found = figures(rows, WordsEncoder())
    planted = sum(not concept.held_out for concept in FEW)
    assert found["accuracy"] == found["any_of_5"] == found["unranked"] == pytest.approx(1 / planted)
    assert [row.module for row in rows if any(row.right())] == [FEW[0].name]
    assert found["similarity"] is not None
    assert found["similarity"] < 1


def test_accuracy_is_of_the_winner_and_unranked_of_the_first() -> None:
    concept = FEW[0]
    rows = [row for row in outcomes(Told(["words", concept.keyword], best=1), FEW) if row.concept is concept]
    found = figures(rows, WordsEncoder())
    assert (found["accuracy"], found["any_of_5"], found["unranked"]) == (1.0, 1.0, 0.0)
    assert found["similarity"] == pytest.approx(1, abs=1e-6)
    assert found["auc"] == 1.0  # the keyword itself is what the module responds to most
    worst = figures([row for row in outcomes(Told(["words"]), FEW) if row.concept is concept], WordsEncoder())
    assert (worst["accuracy"], worst["auc"]) == (0.0, None)


def test_shown_is_whether_the_top_ngrams_give_the_answer() -> None:
    rows = outcomes(Told(["words"]), FEW)
    planted = [row for row in rows if row.concept]
    hits = [any(row.concept.matches(text) for text in row.top) for row in planted if row.concept]
    assert figures(rows, WordsEncoder())["shown"] == pytest.approx(np.mean(hits))
    assert any(hits)
    assert all(len(row.top) == 10 for row in rows)


def test_false_discoveries_are_counted_on_modules_without_a_concept() -> None:
    assert figures(outcomes(Told(["words"], p=0.04), FEW), WordsEncoder())["null_false_discovery"] == 1.0
    assert figures(outcomes(Told(["words"], p=0.05), FEW), WordsEncoder())["null_false_discovery"] == 0.0


def test_the_halves_stay_apart() -> None:
    for held_out in (False, True):
        modules = modules_of(CONCEPTS, WordsEncoder(), held_out)
        names = {concept.name for concept in CONCEPTS if concept.held_out == held_out}
        assert {module.name for module in modules if module.concept} == names
        assert sum(module.concept is None for module in modules) == NULLS
        corpora = {concept.corpus for concept in CONCEPTS if concept.held_out == held_out}
        assert {module.corpus for module in modules} <= corpora


def test_null_modules_are_projections_and_differ() -> None:
    texts = ["a red house", "seven birds", "the sea"]
    values = [module.values(texts) for module in null_modules(CONCEPTS, WordsEncoder(), True)]
    assert len({tuple(np.round(row, 6)) for row in values}) == NULLS
    assert all((abs(row) <= 1).all() for row in values)  # unit vectors on a direction of length 1


def test_a_planted_module_is_the_distance_to_its_keyword() -> None:
    concept, encoder = FEW[3], WordsEncoder()
    texts = [concept.keyword, "a red house"]
    first, second = encoder.encode(texts).astype(np.float64)
    values = planted_module(concept, encoder).values(texts)
    assert values == pytest.approx([0.0, -np.sqrt(((second - first) ** 2).sum())], abs=1e-7)


def test_ngrams_are_those_of_a_twin_and_do_not_cross_a_sentence() -> None:
    sentences = ("The cat sat.", "the Dog, the cat")
    words = [["The", "cat", "sat", "."], ["the", "Dog", ",", "the", "cat"]]
    expected = {" ".join(row[i : i + n]).lower() for row in words for n in (1, 2, 3) for i in range(len(row) - n + 1)}
    found = ngrams_of(sentences)
    assert {key.replace(".", " .").replace(",", " ,").strip() for key in found} == expected
    assert found["the"] == "The"
    assert "sat. the" not in found


def test_restricted_ngrams_also_occur_in_another_corpus() -> None:
    module = planted_module(CONCEPTS[5], WordsEncoder())
    everything, restricted = shown_ngrams(module, "default", CONCEPTS), shown_ngrams(module, "restricted", CONCEPTS)
    others = [" ".join(other.corpus).lower() for other in CONCEPTS if other is not CONCEPTS[5]]
    assert 50 < len(restricted) < len(everything)
    assert set(restricted) <= set(everything)
    assert all(any(ngram.lower() in other for other in others) for ngram in restricted)


def test_unnamed_ngrams_never_give_the_answer() -> None:
    module = planted_module(CONCEPTS[5], WordsEncoder())
    everything, unnamed = shown_ngrams(module, "default", CONCEPTS), shown_ngrams(module, "unnamed", CONCEPTS)
    assert [text for text in everything if not CONCEPTS[5].matches(text)] == unnamed
    assert 100 < len(unnamed) < len(everything)


def test_noise_is_of_three_deviations_of_the_largest_responses() -> None:
    module = planted_module(CONCEPTS[2], WordsEncoder())
    ngrams = shown_ngrams(module, "default", CONCEPTS)
    clean, noisy = (responses(module, ngrams, setting, 1) for setting in ("default", "noisy"))
    expected = NOISE * np.std(sorted(clean)[-100:])
    assert np.std(noisy - clean) == pytest.approx(expected, rel=0.15)
    assert not np.array_equal(noisy, responses(module, ngrams, "noisy", 2))
    np.testing.assert_array_equal(noisy, responses(module, ngrams, "noisy", 1))


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_auc_is_the_share_of_pairs_in_the_right_order(levels: int) -> None:
    rng = np.random.default_rng(levels)
    scores, right = rng.integers(0, levels, 60).tolist(), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in np.array(scores)[right] for b in np.array(scores)[~right]]
    assert auc(scores, right.tolist()) == pytest.approx(np.mean(pairs))
    assert auc([1.0, 2.0], [True, True]) is None


def test_the_figures_without_a_prefix_are_of_the_test_half() -> None:
    row: dict[str, float | None] = {"accuracy": 0.25, "null_false_discovery": 0.1}
    other: dict[str, float | None] = {"accuracy": 0.5, "null_false_discovery": None}
    found = as_json({("test", "noisy"): row, ("tuning", "noisy"): other}, {"test": row, "tuning": other})
    assert found["accuracy_noisy"] == 0.25
    assert found["tuning_accuracy_noisy"] == 0.5
    assert (found["null_false_discovery"], found["tuning_null_false_discovery"]) == (0.1, None)
