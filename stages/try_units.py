"""What people try on a unit of a run: a typed explanation is simulated and scored, a typed text is read by the subject.

Both go the way of the stages: a tried explanation gets the numbers that the stages would give it as the only candidate.
"""

from typing import Any

import numpy as np

from pipeline.config import Corpus, RunConfig
from pipeline.corpora.windows import in_pieces, opening_token, tokenize
from pipeline.errors import UserError
from pipeline.execution.stage import Context, Unit
from pipeline.schemas import SIMULATIONS
from pipeline.subjects.module_kinds import kind_of, modules_of
from stages.evidence import RecordedUnits
from stages.methods import open_method
from stages.score.corpus_scores import corpus_scores
from stages.score.kept_sequences import kept_of_units
from stages.score.pairs import CONTROLS, pair, simulation_errors
from stages.score.scorers import Explained, correlations
from stages.score.truth import true_activations
from stages.settings import Record, Score, Simulate
from stages.simulate import SIMULATORS
from stages.simulate.simulate_units import SIMULATE, Job, simulate_unit
from stages.simulate.simulation import Simulator
from stages.units import draw, unit_name

NUMBERS = (
    "correlation", "ci_low", "ci_high", "correlation_random",
    "correlation_corpus", "correlation_corpus_low", "correlation_corpus_high",
)  # fmt: skip
"""What is said of a tried explanation."""
TRIED = "tried"
"""The explainer of what is tried; no row of it is ever published."""
WORKER = "serve"
"""Replies of a language model are kept as this worker's, so that the run can go on beside it."""


class UnitTrials:
    """The simulator and the subject of a run, each opened when it is first needed."""

    def __init__(self, config: RunConfig) -> None:
        config = config.with_methods({"simulator": config[Simulate].names[0]})
        self._config = config
        self._context = Context(config, SIMULATE, WORKER)
        self._simulator: Simulator | None = None

    async def simulate(self, unit: Unit, explanation: str) -> dict[str, Any]:
        """Expected activations on the unit's `report` exemplars, and their correlation with the true ones, with its interval.

        Raises:
            UserError: the run has no exemplars of the unit, or the simulator is not there.
        """
        module, polarity, index = unit
        name, context, recorded = self._config[Simulate].name, self._context, RecordedUnits.of(self._context)
        shown = [seq_id for seq_id, _ in recorded.sequences(module, [index], ("report",), polarity)[index]]
        if not shown:
            raise UserError(f"the run has no exemplars of {unit_name(module, index, polarity)} in the split report")
        if self._simulator is None:
            section = self._config[Simulate]
            self._simulator = await open_method("simulator", section.used, SIMULATORS, section, section.engine, context)
        keys = {"module": module, "index": index, "polarity": polarity, "explainer": TRIED, "candidate": 0}
        job, tokens = Job(keys, "", index, explanation), recorded.tokens(shown)
        rows = await simulate_unit([job], [(seq_id, "report") for seq_id in shown], tokens, self._simulator, name, 1)
        table = SIMULATIONS.of_rows(rows)
        truth = true_activations(context, module, [index], ("report",), polarity)
        pairs, kept = pair(table, truth), kept_of_units(context, module, polarity, [index], truth)[index]
        rng = draw(self._config.run.seed, "bootstrap/" + unit_name(module, index, polarity))
        nothing = pairs.where(slice(0))
        explained = Explained(nothing, pairs, dict.fromkeys(CONTROLS, nothing), self._config[Score], rng, kept)
        scored = correlations(explained) | corpus_scores(explained)
        return {
            "simulator": name,
            **{name: _finite(scored[name]) for name in NUMBERS},
            "n_sequences": len(pairs.rows),
            "n_tokens": int(pairs.rows["sums"][:, 0].sum()),
            "error": next(iter(simulation_errors(table).values()), None),
            "sequences": [
                {"seq_id": row["seq_id"], "expected": _floats(row["expected"]), "error": row["error"]} for row in rows
            ],
        }

    async def activations(self, unit: Unit, text: str) -> dict[str, Any]:
        """The tokens of a text, cut to the length of a sequence of the corpus, and the unit's activations on them.

        Raises:
            UserError: the text is blank, the run has no such unit, or its module has activations of its own sequences only.
        """
        module, _, index = unit
        self._refuse(module)
        from pipeline.subjects.activation_sources import activations_on, open_source
        from pipeline.subjects.activations import TokenBatch
        from pipeline.subjects.loading.model_loading import load_tokenizer
        from pipeline.subjects.vocabulary import TokenTexts
        from stages.record.recorded_batch import counted_positions
        from stages.record.sequences import special_ids

        config, subject, once = self._config, self._config.subject, self._context.once
        tokenizer = once("tokenizer", lambda _: load_tokenizer(subject.model, subject.trust_remote_code))
        source = once("source", lambda config: open_source(config, _asked_of_any_text(config)))
        if not 0 <= index < source.modules[module].width:
            raise UserError(f"{module} has the units 0 to {source.modules[module].width - 1}, not {index}")
        ids, cut = _token_ids(text, tokenizer, config.corpus)
        found = activations_on(source, module, [index], [(0, ids)], batch_size=1)[0][:, 0]
        batch = TokenBatch(np.array([ids]), np.array([len(ids)]), np.zeros(1, np.int64))
        special = once("special", special_ids)
        counted = counted_positions(batch.token_ids, batch.lengths, config[Record], special)[0]
        tokens = TokenTexts(tokenizer).window(ids, opening=True)
        return {"tokens": tokens, "activations": _floats(np.where(counted, found, np.nan)), "cut": cut}

    def _refuse(self, module: str) -> None:
        """Raises UserError where the units of a module cannot be asked about a text."""
        asked = _asked_of_any_text(self._config)
        if module not in asked:
            raise UserError(
                f"{module} is not a module of the run whose units read any text; those are: {', '.join(asked)}"
            )

    async def aclose(self) -> None:
        """Let go of the kept replies."""
        await self._context.aclose()


def _asked_of_any_text(config: RunConfig) -> list[str]:
    return [module for module in modules_of(config) if kind_of(module).any_text]


def _token_ids(text: str, tokenizer: Any, corpus: Corpus) -> tuple[list[int], bool]:
    """The tokens of a text as a sequence that opens a document has them, and whether it goes on after them."""
    pieces = list(in_pieces("typed", text))
    if not pieces:
        raise UserError("the text is blank; type some words")
    opening = opening_token(tokenizer, corpus.bos)
    ids = [one for _, found in tokenize(pieces, tokenizer) for one in found]
    length = corpus.seq_len - len(opening)
    return [*opening, *ids[:length]], len(ids) > length


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _floats(values: Any) -> list[float | None] | None:
    return None if values is None else [_finite(value) for value in np.asarray(values, np.float64)]
