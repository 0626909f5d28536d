"""How often SASC finds planted concepts again: 62 of them, in three settings, beside the published figures.

The module of a concept is minus the distance to its keyword in the space of a sentence embedder. Its n-grams come from a
small corpus written for the concept:

    default     all of them
    restricted  those that also occur in the corpus of another concept
    noisy       all, with noise of 3 standard deviations of the 100 largest responses
    unnamed     those that the concept's pattern does not match, so that no n-gram gives the answer (not in the publication)

Half of the concepts are set aside: nobody looks at results on them while the explainer is tuned. The last line is JSON;
its keys without a prefix are of that half:

    accuracy_SETTING        the winner by score names the concept (its pattern, fixed beforehand, matches)
    accuracy_shuffled_SETTING  the same for the patterns of the other concepts of the half, on average: a control
    any_of_5_SETTING        one of the candidates does
    unranked_SETTING        the first candidate does
    similarity_SETTING      cosine of the winner's and the keyword's embeddings
    auc_SETTING             of the score for telling right candidates from wrong ones
    shown_SETTING           one of the ten n-grams with the largest responses does: what listing them would give
    null_false_discovery    share of null modules (random directions) whose winner has p < 0.05; each p-value is told by 40
                            further ones, which went through the whole procedure as well
    nulls                   how many null modules that is a share of
    failed, failed_SETTING  modules without a scored explanation, each named on standard error; planted ones count as misses

Modules and the embedded explainer know the same space, that of all-MiniLM: other functions will be harder. And where shown_ is as
large as the accuracy, to list the n-grams would have done as well; in `unnamed` that gives nothing.

Run it with `python -m tests.benchmarks.bench_recovery [--half tuning] [--explainer language_model --base-url URL --model NAME]`.
"""

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Budget, LanguageModel, Sasc
from pipeline.llm.endpoint import open_endpoint
from pipeline.llm.endpoint.engine import EndpointEngine
from pipeline.llm.engine import Engine
from pipeline.llm.in_process import InProcessEngine
from pipeline.llm.load import load_engine_model
from pipeline.subjects.embedder import Embedder, load_embedder
from stages.sasc.summarise import EmbeddedSummariser, LanguageModelSummariser, Summariser
from stages.sasc.synthesis import LanguageModelSynthesizer, RetrievedSynthesizer, Synthesizer
from tests.benchmarks.recovery.concepts import Concept, load_concepts
from tests.benchmarks.recovery.figures import Figures, as_json, by_kind, figures, table
from tests.benchmarks.recovery.harness import Outcome, explain_half
from tests.benchmarks.recovery.method import SascMethod
from tests.benchmarks.recovery.modules import SETTINGS, Setting

AT_ONCE = 8
"""Modules under way at a time, where a language model behind an endpoint is asked."""
HALVES = {"tuning": False, "test": True}
"""Whether the concepts of each are held out."""


@dataclass(frozen=True)
class RememberingEmbedder(Embedder):
    """Embeds a text once in a run."""

    known: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(N, D), as the embedder that it stands for."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, super().encode(new), strict=True))
        return np.asarray([self.known[text] for text in texts], dtype=np.float32).reshape(len(texts), self.width)


def remembering(embedder: Embedder) -> RememberingEmbedder:
    """An embedder that keeps what it has embedded."""
    return RememberingEmbedder(embedder.model, embedder.tokenizer, embedder.device, embedder.name, embedder.revision)


def main(words: Sequence[str] | None = None) -> None:
    """Run it with these arguments, or those of the command line."""
    arguments = _arguments(words)
    concepts = load_concepts()
    embedder = remembering(load_embedder())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = asyncio.run(_outcomes(arguments, concepts, embedder, Path(folder)))
    if arguments.half == "tuning":
        _print_each(outcomes["tuning"])
    report = _report(outcomes, arguments.settings, embedder)
    print(json.dumps(report | {"concepts": len(concepts), "seconds": round(time.monotonic() - start, 1)}))


async def _outcomes(
    arguments: argparse.Namespace, concepts: Sequence[Concept], embedder: Embedder, folder: Path
) -> dict[str, list[Outcome]]:
    """By half; all in one event loop, which the connections to an endpoint belong to."""
    engine = _engine(arguments, folder)
    passages = [line for concept in concepts for line in concept.corpus]
    method = _method(arguments, passages, embedder, engine)
    at_once = AT_ONCE if isinstance(engine, EndpointEngine) else 1
    found: dict[str, list[Outcome]] = {}
    for half in HALVES if arguments.half == "both" else [arguments.half]:
        found[half] = []
        for setting, seed in itertools.product(arguments.settings, range(arguments.seeds)):
            found[half] += await explain_half(
                concepts, HALVES[half], setting, seed, method, embedder, arguments.few, at_once
            )
    if isinstance(engine, EndpointEngine):
        await engine.aclose()
    return found


def _report(outcomes: dict[str, list[Outcome]], settings: Sequence[Setting], embedder: Embedder) -> Figures:
    """Print the table; the figures of the last line."""
    found = {
        (half, setting): figures([outcome for outcome in rows if outcome.setting == setting], embedder)
        for half, rows in outcomes.items()
        for setting in settings
    }
    print(table(found))
    for half, rows in outcomes.items():
        for setting in settings:
            kinds = by_kind([outcome for outcome in rows if outcome.setting == setting])
            print(f"{half:8}{setting:12}" + "  ".join(f"{kind} {share:.2f}" for kind, share in kinds.items()))
    return as_json(found, {half: figures(rows, embedder) for half, rows in outcomes.items()})


def _print_each(outcomes: Sequence[Outcome]) -> None:
    """Every winner, for tuning."""
    for outcome in outcomes:
        right = "+" if outcome.found else ("o" if any(outcome.right()) else "-")
        name = f"{right} {outcome.setting:11}{outcome.seed} {outcome.module:22}"
        print(f"{name}{outcome.score:6.2f} {outcome.p_value:.3f}  {outcome.explanation}")


def _method(
    arguments: argparse.Namespace, passages: Sequence[str], embedder: Embedder, engine: Engine | None
) -> SascMethod:
    summariser: Summariser = EmbeddedSummariser(embedder, engine)
    if arguments.explainer == "language_model":
        assert engine is not None, "the arguments were looked at"
        summariser = LanguageModelSummariser(engine)
    synthesizer: Synthesizer = RetrievedSynthesizer(passages, embedder)
    if arguments.synthesizer == "language_model":
        assert engine is not None, "the arguments were looked at"
        synthesizer = LanguageModelSynthesizer(engine)
    return SascMethod(summariser, synthesizer, embedder, Sasc())


def _engine(arguments: argparse.Namespace, folder: Path) -> Engine | None:
    """The language model that the arguments name, if they do."""
    if arguments.model is None:
        return None
    given = {name: getattr(arguments, name) for name in ("model", "base_url", "key_variable", "timeout", "retries")}
    model = LanguageModel(**{name: value for name, value in given.items() if value is not None})
    if model.base_url is None:
        return InProcessEngine(load_engine_model(model))
    return open_endpoint(model, folder, "0-of-1", Budget())


def _arguments(words: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=["tuning", "test", "both"], default="both")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--few", type=int, help="so many planted, null and reference modules alone, to try an endpoint")
    parser.add_argument("--explainer", choices=["embedded", "language_model"], default="embedded")
    parser.add_argument("--synthesizer", choices=["retrieved", "language_model"], default="retrieved")
    parser.add_argument("--model", help="package:NAME, a folder or a hub id; behind an endpoint, its name there")
    parser.add_argument("--base-url", help="an OpenAI-compatible endpoint")
    parser.add_argument("--key-variable", help="environment variable with the endpoint's key")
    parser.add_argument("--timeout", type=float, help="seconds until a request to the endpoint is given up")
    parser.add_argument("--retries", type=int, help="of a request that fails")
    arguments = parser.parse_args(words)
    if "language_model" in (arguments.explainer, arguments.synthesizer) and arguments.model is None:
        parser.error("--explainer or --synthesizer language_model needs --model")
    return arguments


if __name__ == "__main__":
    main()
