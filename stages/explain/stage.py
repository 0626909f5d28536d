"""The explain stage: evidence of the `explain` split to candidate explanations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.config import LanguageModel, RunConfig
from pipeline.context import Context
from pipeline.errors import stops_the_shard
from pipeline.evidence import Evidence
from pipeline.prompts import digests
from pipeline.schemas import EXPLANATIONS
from pipeline.stage import Shard, Stage
from pipeline.subjects.spec import resolve_model
from stages.explain.base import Candidate, Explainer, ExplanationError
from stages.explain.units import draw, refuse_unknown_units, unit_shards

if TYPE_CHECKING:
    from pipeline.subjects.load import LoadedModel

_PROMPTS = {"statistics": "explain/label", "token_activation": "explain/token_activation"}


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change an explanation."""
    return {
        "seed": config.run.seed,
        "explain": config.explain.model_dump(exclude={"shard_units", "engine"}),
        "engine": engine_settings(config.explain.engine),
        "prompts": digests(_PROMPTS[config.explain.explainer]) if config.explain.engine else {},
        "skip_positions": config.record.skip_positions,
    }


def engine_settings(engine: LanguageModel | None) -> dict[str, Any] | None:
    """What identifies a language model; the device does not."""
    if engine is None:
        return None
    return {"model": engine.model, "revision": resolve_model(engine.model).revision, "dtype": engine.dtype}


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:
    """Explain the units of one shard."""
    explainer = context.once("explainer", load_explainer)
    rows = []
    for evidence in context.evidence(shard.key["module"], shard.key["indices"]):
        seed = int(draw(context.config.run.seed, f"{evidence.module}/{evidence.index}").integers(2**31))
        rows += explain_unit(explainer, evidence, seed)
    return {EXPLANATIONS.name: pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)}


def explain_unit(explainer: Explainer, evidence: Evidence, seed: int) -> list[dict[str, Any]]:
    """Rows of the explanations table for one unit; a unit that cannot be explained has one row that says why."""
    if not any(np.nanmax(exemplar.activations, initial=0.0) > 0 for exemplar in evidence.exemplars):
        return [_row(explainer, evidence, 0, Candidate(""), "dead", "no activation above 0 in the explain split")]
    try:
        candidates = explainer.explain(evidence, seed)
    except ExplanationError as error:
        return [_row(explainer, evidence, 0, Candidate(""), "failed", str(error))]
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
        "status": status,
        "error": error,
    }


def load_explainer(config: RunConfig) -> Explainer:
    """The explainer that the run file names."""
    model = None if config.explain.engine is None else load_engine_model(config.explain.engine)
    if config.explain.explainer == "statistics":
        from stages.explain.statistics import StatisticsExplainer

        return StatisticsExplainer(model, config.explain.candidates)
    from pipeline.llm.in_process import InProcessEngine
    from stages.explain.token_activation import TokenActivationExplainer

    assert model is not None
    return TokenActivationExplainer(InProcessEngine(model), config.explain.candidates)


def load_engine_model(engine: LanguageModel) -> "LoadedModel":
    """The language model that a section of the run file names."""
    from pipeline.subjects.load import load_language_model

    return load_language_model(engine.model, engine.dtype, engine.device, engine.trust_remote_code)


def check(config: RunConfig) -> None:
    """Raises UserError where a listed unit does not exist, or the language model or its device is not there."""
    check_engine(config.explain.engine)
    refuse_unknown_units(config)


def check_engine(engine: LanguageModel | None) -> None:
    """Raises UserError where a language model or its device is not there; loads no weights."""
    if engine is not None:
        from pipeline.subjects.facts import describe_model
        from pipeline.subjects.load import resolve_device

        resolve_device(engine.device)
        describe_model(engine.model, engine.trust_remote_code)


EXPLAIN = Stage(
    name="explain",
    title="explain units",
    reads=("record.merge", "corpus"),
    writes=(EXPLANATIONS,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config.explain.shard_units),
    process=process,
    splits=("explain",),
    check=check,
)
