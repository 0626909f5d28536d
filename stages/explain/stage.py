"""The explain stage: evidence of the `explain` split to candidate explanations."""

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.context import Context
from pipeline.execution.stage import ModelUse, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings, load_engine, load_engine_model
from pipeline.prompts import digests_with_examples
from pipeline.schemas import EXPLANATIONS
from stages.evidence import Evidence
from stages.explain.base import Candidate, Explainer, ExplanationError
from stages.recorded_units import RecordedUnits
from stages.settings import Explain, Record
from stages.units import draw, refuse_unknown_units, unit_name, unit_shards

if TYPE_CHECKING:
    from pipeline.llm.engine import Engine


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change an explanation."""
    return {
        "seed": config.run.seed,
        "explain": config[Explain].model_dump(exclude={"shard_units", "engine"}),
        "engine": engine_settings(config[Explain].engine),
        "prompts": prompt_digests(config),
        "skip_positions": config[Record].skip_positions,
    }


def prompt_digests(config: RunConfig) -> dict[str, str]:
    """Digests of the prompt files that the explainer may use."""
    if config[Explain].engine is None:
        return {}
    name = "label" if config[Explain].explainer == "statistics" else config[Explain].explainer
    return digests_with_examples(f"explain/{name}.")


async def process(shard: Shard, context: Context) -> Rows:
    """Explain the units of one shard, side by side."""
    explainer = open_explainer(context)
    unit = (shard.key["module"], shard.key["indices"], shard.key["polarity"])
    found = await asyncio.to_thread(RecordedUnits.of(context).evidence, *unit)

    async def explain(evidence: Evidence) -> list[dict[str, Any]]:
        name = unit_name(evidence.module, evidence.index, evidence.polarity)
        seed = int(draw(context.config.run.seed, name).integers(2**31))
        return await explain_unit(explainer, evidence, seed)

    rows = [row for unit in await bounded_gather(explain, found, len(found)) for row in unit]
    return {EXPLANATIONS.name: pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)}


async def explain_unit(explainer: Explainer, evidence: Evidence, seed: int) -> list[dict[str, Any]]:
    """Rows of the explanations table for one unit; a unit that cannot be explained has one row that says why."""
    await asyncio.sleep(0)  # an interruption takes effect between units
    if not any(np.nanmax(exemplar.activations, initial=0.0) > 0 for exemplar in evidence.exemplars):
        return [
            _row(
                explainer,
                evidence,
                0,
                Candidate(""),
                "dead",
                f"no activation {'above' if evidence.polarity == '+' else 'below'} 0 in the explain split",
            )
        ]
    try:
        candidates = await explainer.explain(evidence, seed)
    except ExplanationError as error:
        spent = Candidate("", prompt_tokens=error.prompt_tokens, completion_tokens=error.completion_tokens)
        return [_row(explainer, evidence, 0, spent, "failed", str(error))]
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [_row(explainer, evidence, 0, Candidate(""), "failed", f"{type(error).__name__}: {error}")]
    return [_row(explainer, evidence, number, candidate, "ok") for number, candidate in enumerate(candidates)]


def _row(
    explainer: Explainer, evidence: Evidence, number: int, candidate: Candidate, status: str, error: str | None = None
) -> dict[str, Any]:
    return {
        "module": evidence.module,
        "index": evidence.index,
        "polarity": evidence.polarity,
        "explainer": explainer.name,
        "candidate": number,
        "text": candidate.text or None,
        "model": candidate.model,
        "prompt_id": candidate.prompt_id,
        "prompt_tokens": candidate.prompt_tokens,
        "completion_tokens": candidate.completion_tokens,
        "dropped": candidate.dropped or None,
        "status": status,
        "error": error,
    }


def open_explainer(context: Context) -> Explainer:
    """The explainer that the run file names, made once."""
    explain = context.config[Explain]
    if explain.explainer == "statistics":
        return context.once("explainer", lambda _: _statistics(explain))
    engine = context.once("engine", lambda _: load_engine(explain.engine, context))
    return context.once("explainer", lambda _: load_explainer(explain, engine))


def _statistics(explain: Explain) -> Explainer:
    from stages.explain.statistics import StatisticsExplainer

    model = None if explain.engine is None else load_engine_model(explain.engine)
    return StatisticsExplainer(model, explain.candidates)


def load_explainer(explain: Explain, engine: "Engine") -> Explainer:
    """The explainer that asks a language model by the named method."""
    if explain.explainer == "token_activation":
        from stages.explain.token_activation import TokenActivationExplainer

        return TokenActivationExplainer(engine, explain.candidates)
    if explain.explainer == "token_space":
        from stages.explain.token_space import TokenSpaceExplainer

        return TokenSpaceExplainer(engine, explain.candidates)
    if explain.explainer == "max_activation":
        from stages.explain.max_activation import MaxActivationExplainer

        return MaxActivationExplainer(engine, explain.candidates)
    from stages.explain.contrastive import ContrastiveExplainer

    return ContrastiveExplainer(engine, explain.candidates, explain.negatives)


def model_use(config: RunConfig) -> ModelUse | None:
    """The language model that the explainer asks; `statistics` uses one without asking it."""
    explain = config[Explain]
    if explain.engine is None or explain.explainer == "statistics":
        return None
    return ModelUse(explain.engine, f"explainer {explain.explainer}")


def check(config: RunConfig) -> None:
    """Raises UserError where a listed unit does not exist, or the language model or its device is not there."""
    check_engine(config[Explain].engine)
    refuse_unknown_units(config)


EXPLAIN = Stage(
    name="explain",
    title="explain units",
    reads=("record.merge", "record.weights", "record.details", "record.negatives", "corpus"),
    writes=(EXPLANATIONS,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config[Explain].shard_units),
    process=process,
    splits=("explain",),
    check=check,
    asks=model_use,
    method="simulation",
)
