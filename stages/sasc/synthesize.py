"""The synthesize stage: texts for and against each explanation, and the unit's response to each of them."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.errors import UserError, stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.context import Context
from pipeline.execution.stage import Asking, ModelUse, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings, load_engine
from pipeline.prompts import digests
from pipeline.schemas import CORPUS
from pipeline.subjects.identity import BLACK_BOX, needs_model, source_identities
from pipeline.subjects.loading.model_source import resolve_model
from stages.sasc.explained import Row, by_unit, plan, table_of
from stages.sasc.halves import HALVES, deal
from stages.sasc.nulls import with_nulls
from stages.sasc.sasc_tables import SYNTHETIC_TEXTS, THEMES
from stages.sasc.synthetic_texts import Synthesizer, Texts
from stages.sasc.texts_retrieved import cut_passages
from stages.sasc.texts_written import LanguageModelSynthesizer, stand_in
from stages.settings import Sasc
from stages.units import draw, unit_name

PASSAGES = 5_000
"""Passages of the corpus that texts are retrieved from, at most."""
KEYS = ("module", "index", "polarity", "explainer", "candidate")


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a text or a response."""
    config = with_nulls(config)
    sasc, subject = config[Sasc], config.subject
    found: dict[str, Any] = {
        "seed": config.run.seed,
        "sasc": sasc.model_dump(include={"texts", "synthesizer", "pool"}),
        "modules": subject.modules,
        "sources": source_identities(config),
    }
    if needs_model(subject.modules):
        found |= {"model": subject.model, "revision": resolve_model(subject.model).revision, "dtype": subject.dtype}
    if sasc.synthesizer == "language_model":
        found |= {
            "engine": engine_settings(sasc.synthesize_engine),
            "prompts": digests("sasc/relevant.") | digests("sasc/baseline."),
        }
    else:
        found |= {"embedder": sasc.embedder, "embedder_revision": resolve_model(sasc.embedder).revision}
    return found


async def process(shard: Shard, context: Context) -> Rows:
    """Texts and responses for the explanations of the units of one shard."""
    found, wanted = await written(shard, context), context.config[Sasc].texts
    units = itertools.groupby(found, key=lambda explained: explained[0]["index"])
    rows = [row for _, unit in units for row in unit_rows(list(unit), wanted)]
    await respond(rows, shard.key["module"], context)
    return {SYNTHETIC_TEXTS.name: table_of(rows, SYNTHETIC_TEXTS.schema)}


async def written(shard: Shard, context: Context) -> list[tuple[Row, Texts]]:
    """The explanations of a shard's units, each with its texts; those of a unit in a row."""
    synthesizer = context.once("synthesizer", lambda _: open_synthesizer(context))
    themes = [
        row for rows in by_unit(context.tables, THEMES, shard.key).values() for row in rows if row["status"] == "ok"
    ]

    async def write(theme: Row) -> Texts:
        await asyncio.sleep(0)  # an interruption takes effect between explanations
        return await write_texts(synthesizer, theme, context.config)

    remote = context.config[Sasc].synthesizer == "language_model"
    found = await bounded_gather(write, themes, len(themes) if remote else 1)
    return list(zip(themes, found, strict=True))


async def write_texts(synthesizer: Synthesizer, theme: Row, config: RunConfig) -> Texts:
    """Texts for one explanation; none, with the error, where they could not be written."""
    name = unit_name(theme["module"], theme["index"], theme["polarity"])
    seed = int(draw(config.run.seed, f"texts/{name}/{theme['candidate']}").integers(2**31))
    try:
        return await synthesizer.write(theme["text"], config[Sasc].texts, seed)
    except Exception as error:
        if stops_the_shard(error):
            raise
        said = f"{type(error).__name__}: {error}"
        return Texts([], [], "", errors=(said, said))


async def respond(rows: Sequence[Row], module: str, context: Context) -> None:
    """Fill in the responses of each row's unit; one that is no number is a failed row.

    A black box is asked for each unit by itself, so that what fails on the texts of one says nothing of another,
    whichever units share a shard; the rows of a unit on which it fails say what it failed of.
    """
    asked = [row for row in rows if row["text"] is not None]
    if not module.startswith(BLACK_BOX):
        _ask(asked, module, context)
        return
    for index in sorted({row["index"] for row in asked}):
        await asyncio.sleep(0)  # replies that other shards wait for are taken in between
        own = [row for row in asked if row["index"] == index]
        try:
            _ask(own, module, context)
        except UserError as error:
            for row in own:
                row |= {"status": "failed", "error": str(error)}


def _ask(rows: Sequence[Row], module: str, context: Context) -> None:
    """Ask the module about the texts of all rows at once.

    Raises:
        UserError: the module fails.
    """
    if not rows:
        return
    texts = list(dict.fromkeys(row["text"] for row in rows))
    function = context.once(f"function of {module}", lambda config: _function(with_nulls(config), module))
    values = function.values(texts)
    place = {text: number for number, text in enumerate(texts)}
    for row in rows:
        value = float(values[place[row["text"]], row["index"]])
        if np.isfinite(value):
            row["response"] = value
        else:
            row |= {"status": "failed", "error": f"the response is {value}; give a number for every text"}


def _function(config: RunConfig, module: str) -> Any:
    from pipeline.subjects.text_functions import open_text_function

    return open_text_function(config, module, config[Sasc].pool)


def unit_rows(unit: Sequence[tuple[Row, Texts]], wanted: int) -> list[Row]:
    """Rows of the texts of one unit, from its explanations and what was written for each.

    Args:
        wanted: texts of each kind; where there are fewer, the first row says why.
    """
    halves = deal([found for _, texts in unit for found in (texts.relevant, texts.baseline)])
    return [
        row
        for number, (theme, texts) in enumerate(unit)
        for place in (0, 1)
        for row in _rows(theme, texts, place, halves[2 * number + place], wanted)
    ]


def _rows(theme: Row, texts: Texts, place: int, halves: Sequence[str], wanted: int) -> list[Row]:
    """A row for each text of a kind; one without a text where there is none. The first carries what all of them took."""
    kind, found = (("relevant", texts.relevant), ("baseline", texts.baseline))[place]
    keys = {name: theme[name] for name in KEYS}
    shown: Sequence[str | None] = found or [None]
    rows: list[Row] = [
        keys
        | {"kind": kind, "number": number, "half": half, "text": text, "origin": texts.origin}
        | {"model": texts.model, "prompt_id": texts.prompt_ids[place], "status": "ok" if found else "failed"}
        | {"prompt_tokens": 0, "completion_tokens": 0, "error": None}
        for number, (text, half) in enumerate(zip(shown, halves or HALVES[:1], strict=True))
    ]
    rows[0] |= {"prompt_tokens": texts.prompt_tokens[place], "completion_tokens": texts.completion_tokens[place]}
    if len(found) < wanted:
        rows[0]["error"] = texts.errors[place] or f"{len(found)} of {wanted} texts could be used"
    return rows


def open_synthesizer(context: Context) -> Synthesizer:
    """The synthesizer that the run file names."""
    sasc = context.config[Sasc]
    if sasc.synthesizer == "language_model":
        return LanguageModelSynthesizer(context.once("engine", lambda _: load_engine(sasc.synthesize_engine, context)))
    from pipeline.subjects.embedder import load_embedder
    from stages.sasc.texts_retrieved import RetrievedSynthesizer

    return RetrievedSynthesizer(corpus_passages(context), load_embedder(sasc.embedder, sasc.device))


def corpus_passages(context: Context) -> list[str]:
    """Sentences of the corpus, at most PASSAGES of them, drawn by the seed."""
    rows = context.tables.read(CORPUS, columns=["seq_id", "start", "tokens"]).sort_by("seq_id")
    texts = (
        ("".join(tokens), start == 0)
        for tokens, start in zip(rows["tokens"].to_pylist(), rows["start"].to_pylist(), strict=True)
    )
    return cut_passages(texts, PASSAGES, draw(context.config.run.seed, "passages"))


def model_use(config: RunConfig) -> ModelUse | None:
    """The language model that writes texts."""
    sasc = config[Sasc]
    if sasc.synthesize_engine is None or sasc.synthesizer != "language_model":
        return None
    return ModelUse(sasc.synthesize_engine, f"sasc synthesizer {sasc.synthesizer}")


def check(config: RunConfig) -> None:
    """Raises UserError where the language model, its device or the embedder is not there."""
    check_engine(config[Sasc].synthesize_engine)
    if config[Sasc].synthesizer == "retrieved":
        resolve_model(config[Sasc].embedder)


SYNTHESIZE = Stage(
    name="synthesize",
    title="find or write texts for and against",
    reads=("explain.sasc", "corpus"),
    writes=(SYNTHETIC_TEXTS,),
    settings=settings,
    plan=plan,
    process=process,
    check=check,
    asks=model_use,
    estimate=Asking(written, stand_in=stand_in),
    method="sasc",
    version=5,
)
