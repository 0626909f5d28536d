"""The explain.sasc stage: from the n-grams that a unit responds to, to what they share."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.context import Context
from pipeline.execution.stage import Asking, ModelUse, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings, load_engine
from pipeline.prompts import digests
from pipeline.subjects.loading.model_source import resolve_model
from stages.english.thesaurus import thesaurus_version
from stages.explain.base import ExplanationError
from stages.sasc.candidates import Theme, themes
from stages.sasc.explained import Row, by_unit, plan, table_of
from stages.sasc.sasc_tables import NGRAMS, RESPONSES, THEMES
from stages.settings import Sasc
from stages.units import draw, unit_name

if TYPE_CHECKING:
    from pipeline.llm.engine import Request
    from stages.sasc.summarise import Summariser

PROMPTS = {"embedded": "explain/label.", "language_model": "sasc/summarise."}


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change an explanation."""
    sasc = config[Sasc]
    found: dict[str, Any] = {
        "seed": config.run.seed,
        "sasc": sasc.model_dump(include={"top", "shown", "candidates", "explainer"}),
        "engine": engine_settings(sasc.explain_engine),
        "prompts": digests(PROMPTS[sasc.explainer]) if sasc.explain_engine is not None else {},
    }
    if sasc.explainer == "embedded":
        found |= {"embedder": sasc.embedder, "revision": resolve_model(sasc.embedder).revision}
        found["thesaurus"] = thesaurus_version()
    return found


async def process(shard: Shard, context: Context) -> Rows:
    """Explain the units of one shard, side by side."""
    summariser = context.once("summariser", lambda _: open_summariser(context))
    responses = by_unit(context.tables, RESPONSES, shard.key)
    ngrams = by_unit(context.tables, NGRAMS, shard.key)

    async def explain(index: int) -> list[Row]:
        return await explain_unit(summariser, responses[index][0], ngrams[index], context.config)

    indices = shard.key["indices"]
    engine = context.config[Sasc].explain_engine
    remote = engine is not None and engine.base_url is not None
    found = await bounded_gather(explain, indices, len(indices) if remote else 1)
    return {THEMES.name: table_of([row for unit in found for row in unit], THEMES.schema)}


async def explain_unit(summariser: "Summariser", unit: Row, ngrams: list[Row], config: RunConfig) -> list[Row]:
    """Rows of the themes of one unit; a unit that cannot be explained has one row that says why.

    Args:
        unit: its row of `responses`.
        ngrams: its rows of `ngrams`.
    """
    await asyncio.sleep(0)  # an interruption takes effect between units
    keys = {name: unit[name] for name in ("module", "index", "polarity")} | {"explainer": summariser.name}
    if unit["status"] != "ok":
        return [keys | _theme(0, unit["status"], unit["error"])]
    sign = 1.0 if unit["polarity"] == "+" else -1.0
    kept = [(row["text"], sign * row["response"]) for row in sorted(ngrams, key=lambda row: row["rank"])]
    seed = int(
        draw(config.run.seed, "themes/" + unit_name(unit["module"], unit["index"], unit["polarity"])).integers(2**31)
    )
    try:
        found = await themes(summariser, kept, config[Sasc], seed)
    except ExplanationError as error:
        spent = {"prompt_tokens": error.prompt_tokens, "completion_tokens": error.completion_tokens}
        return [keys | _theme(0, "failed", str(error)) | spent]
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [keys | _theme(0, "failed", f"{type(error).__name__}: {error}")]
    return [keys | _theme(number, "ok", None, theme) for number, theme in enumerate(found)]


def _theme(number: int, status: str, error: str | None, theme: Theme | None = None) -> Row:
    candidate = None if theme is None else theme.candidate
    return {
        "candidate": number,
        "text": None if candidate is None else candidate.text,
        "model": "" if candidate is None else candidate.model,
        "prompt_id": "" if candidate is None else candidate.prompt_id,
        "prompt_tokens": 0 if candidate is None else candidate.prompt_tokens,
        "completion_tokens": 0 if candidate is None else candidate.completion_tokens,
        "ngrams_shown": [] if theme is None else theme.drawn,
        "status": status,
        "error": error,
    }


def open_summariser(context: Context) -> "Summariser":
    """The summariser that the run file names."""
    sasc = context.config[Sasc]
    engine = None
    if sasc.explain_engine is not None:
        engine = context.once("engine", lambda _: load_engine(sasc.explain_engine, context))
    if sasc.explainer == "language_model":
        from stages.sasc.summarise import LanguageModelSummariser

        assert engine is not None, "the section Sasc sees to it"
        return LanguageModelSummariser(engine)
    from pipeline.subjects.embedder import load_embedder
    from stages.sasc.summarise_embedded import EmbeddedSummariser

    return EmbeddedSummariser(load_embedder(sasc.embedder, sasc.device), engine)


def stand_in(request: "Request", number: int) -> str:
    """An explanation as a language model could give it, another one for each number."""
    text = f"words about life in towns and villages of kind {number}"
    return json.dumps({"explanation": text}) if request.schema else text


def model_use(config: RunConfig) -> ModelUse | None:
    """The language model that says what n-grams share."""
    sasc = config[Sasc]
    return None if sasc.explain_engine is None else ModelUse(sasc.explain_engine, f"sasc explainer {sasc.explainer}")


def check(config: RunConfig) -> None:
    """Raises UserError where the language model, its device, the embedder or the thesaurus is not there."""
    check_engine(config[Sasc].explain_engine)
    resolve_model(config[Sasc].embedder)
    if config[Sasc].explainer == "embedded":
        thesaurus_version()


EXPLAIN = Stage(
    name="explain.sasc",
    title="say what n-grams share",
    reads=("ngrams.merge",),
    writes=(THEMES,),
    settings=settings,
    plan=plan,
    process=process,
    check=check,
    asks=model_use,
    estimate=Asking(stand_in=stand_in),
    method="sasc",
    version=5,
)
