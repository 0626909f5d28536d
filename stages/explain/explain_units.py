"""The explain stage: evidence of the `explain` split to candidate explanations."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.errors import stops_the_shard
from pipeline.execution.stage import Context, EstimateHints, ModelUse, Rows, Shard, Stage, Unit
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import EXPLANATIONS
from pipeline.storage.by_hand import WrittenExplanation
from stages.estimates import explain_sizes, made_up_explanations
from stages.evidence import Evidence, RecordedUnits
from stages.explain import EXPLAINERS, HUMAN
from stages.human_explainer import explainers, round_of, written
from stages.methods import model_use, open_method, prompt_digests
from stages.settings import Explain, Record
from stages.units import draw, refuse_unknown_units, unit_name, unit_shards


@dataclass(frozen=True)
class Candidate:
    """One hypothesis in words about a unit."""

    text: str
    prompt_id: str = ""
    """Name and version of the prompt that made it, such as `explain/token_activation.v1`; empty without a prompt."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: str = ""
    """What the prompt had to leave out to fit the model's context, in words."""
    truncated: bool = False
    """Whether the token limit cut the explanation off."""
    asked: str = ""
    """What the language model was asked about the unit, behind the examples of the prompt."""
    reply: str = ""
    """What it replied, as it came."""

    def columns(self) -> dict[str, Any]:
        """Its columns in a table; texts that it lacks are null."""
        nulls = ("text", "dropped", "asked", "reply")
        return {name: None if name in nulls and not value else value for name, value in vars(self).items()}


Explainer = Callable[[Evidence, int], Awaitable[list[Candidate]]]
"""Writes explanations of a unit, given its `explain` split and a seed: candidates, best guess first, never empty.

Raises:
    ExplanationError: nothing can be said of this unit; the message becomes the row's `error`.
"""
TRUNCATED = "the token limit cut the explanation off, and no reply was whole; raise explain.max_tokens"


class ExplanationError(Exception):
    """This unit could not be explained; the run goes on."""

    def __init__(self, message: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """prompt_tokens, completion_tokens: what was spent on the unit all the same."""
        super().__init__(message)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change an explanation."""
    explain = config[Explain]
    if round_of(explain.name) is not None:
        return {"by hand": True}
    method = choice(EXPLAINERS, explain.used)
    return {
        "seed": config.run.seed,
        "explain": explain.model_dump(exclude={"shard_units", "engine", "units", "polarities", "variants"}),
        "engine": engine_settings(explain.engine),
        "prompts": prompt_digests(method, explain.engine, config.run.prompts),
        "skip_positions": config[Record].skip_positions,
    }


async def process(shard: Shard, context: Context) -> Rows:
    """Explain the units of one shard, side by side."""
    config, explain_settings = context.config, context.config[Explain]
    name, number = explain_settings.name, 0
    if (by_hand := written(config)) is not None:
        name, number, explainer = HUMAN, round_of(name) or 0, by_whom(by_hand)
    else:
        engine = explain_settings.engine
        explainer = await open_method("explainer", explain_settings.used, EXPLAINERS, explain_settings, engine, context)
    unit = (shard.key["module"], shard.key["indices"], shard.key["polarity"])
    found = await asyncio.to_thread(RecordedUnits.of(context).evidence, *unit)

    async def explain(evidence: Evidence) -> list[dict[str, Any]]:
        seed = draw(config.run.seed, unit_name(evidence.module, evidence.index, evidence.polarity)).integers(2**31)
        return await explain_unit(name, explainer, evidence, int(seed), number)

    rows = [row for unit in await context.gather(explain, found, len(found)) for row in unit]
    return {EXPLANATIONS.name: EXPLANATIONS.of_rows(rows)}


def by_whom(by_hand: Mapping[Unit, WrittenExplanation]) -> Explainer:
    """The explainer that says what was written of each unit."""

    async def explain(evidence: Evidence, _: int) -> list[Candidate]:
        return [Candidate(by_hand[evidence.module, evidence.polarity, evidence.index].text)]

    return explain


async def explain_unit(
    name: str, explainer: Explainer, evidence: Evidence, seed: int, first: int = 0
) -> list[dict[str, Any]]:
    """Rows of the explanations table by a named explainer; a unit that cannot be explained has one row that says why.

    Args:
        first: number of its first candidate.
    """
    unit = {"module": evidence.module, "index": evidence.index, "polarity": evidence.polarity, "explainer": name}

    def row(number: int, candidate: Candidate, status: str, error: str | None = None) -> dict[str, Any]:
        return {**unit, "candidate": first + number, **candidate.columns(), "status": status, "error": error}

    await asyncio.sleep(0)  # an interruption takes effect between units
    if not any(np.nanmax(exemplar.activations, initial=0.0) > 0 for exemplar in evidence.exemplars):
        side = "above" if evidence.polarity == "+" else "below"
        return [row(0, Candidate(""), "dead", f"no activation {side} 0 in the explain split")]
    try:
        candidates = await explainer(evidence, seed)
    except ExplanationError as error:
        spent = Candidate("", prompt_tokens=error.prompt_tokens, completion_tokens=error.completion_tokens)
        return [row(0, spent, "failed", str(error))]
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [row(0, Candidate(""), "failed", f"{type(error).__name__}: {error}")]
    return [
        row(number, candidate, *(("truncated", TRUNCATED) if candidate.truncated else ("ok",)))
        for number, candidate in enumerate(candidates)
    ]


def model_asked(config: RunConfig) -> ModelUse | None:
    """The language model that explains; none where a person does."""
    explain = config[Explain]
    by_hand = round_of(explain.name) is not None
    return None if by_hand else model_use("explainer", explain.used, EXPLAINERS, explain.engine)


def check(config: RunConfig) -> None:
    """Raises UserError where a listed unit does not exist, or the language model, its device or a prompt is not there."""
    check_engine(config[Explain].engine)
    refuse_unknown_prompts(config.run.prompts)
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
    methods=explainers,
    asks=model_asked,
    estimate=EstimateHints(explain_sizes, made_up_explanations),
    method="simulation",
)
