"""The synthesize stage: texts for and against each explanation, and the unit's response to each of them."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.errors import UserError, stops_the_shard
from pipeline.execution.stage import Context, EstimateHints, Rows, Shard, Stage
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import EXPLANATION_KEYS
from pipeline.subjects.loading.model_source import model_identity
from pipeline.subjects.module_kinds import modules_of, needs_model, source_identities
from stages.methods import build_method, model_use, prompt_digests
from stages.sasc import SYNTHESIZERS, Sasc
from stages.sasc.ngram_pieces import normalised_text
from stages.sasc.sasc_tables import SYNTHETIC_TEXTS, THEMES
from stages.sasc.sasc_units import Row, rows_by_unit, unit_shards, with_nulls
from stages.units import draw, unit_name

KINDS = ("relevant", "baseline")
HALVES = ("select", "report")
"""The half that chooses among the candidates of a unit, and the one that publishes the winner's score."""


@dataclass(frozen=True)
class Texts:
    """Texts for and against an explanation; there may be fewer than were wanted.

    Its pairs are of the relevant and of the baseline texts.
    """

    relevant: list[str]
    baseline: list[str]
    origin: str
    """written by a language model, or retrieved from the corpus."""
    model: str = ""
    prompt_ids: tuple[str, str] = ("", "")
    prompt_tokens: tuple[int, int] = (0, 0)
    completion_tokens: tuple[int, int] = (0, 0)
    errors: tuple[str, str] = ("", "")
    """Why there are fewer texts of a kind than were wanted."""


class Synthesizer(Protocol):
    """Provides texts for and against an explanation."""

    async def write(self, explanation: str, count: int, seed: int) -> Texts:
        """Up to `count` texts of each kind, all different."""
        ...


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a text or a response."""
    config = with_nulls(config)
    sasc = config[Sasc]
    method = choice(SYNTHESIZERS, sasc.synthesizer)
    engine = None if method.model == "none" else sasc.synthesize_engine
    found: dict[str, Any] = {
        "seed": config.run.seed,
        "sasc": sasc.model_dump(include={"texts", "synthesizer", "pool"}),
        "modules": modules_of(config),
        "sources": source_identities(config),
        "engine": engine_settings(engine),
        "prompts": prompt_digests(method, engine, config.run.prompts),
        **method.settings(sasc),
    }
    if needs_model(modules_of(config)):
        found |= {name: value for name, value in model_identity(config.subject).items() if name != "paths"}
    return found


async def process(shard: Shard, context: Context) -> Rows:
    """Texts and responses for the explanations of the units of one shard."""
    found, wanted = await written(shard, context), context.config[Sasc].texts
    units = itertools.groupby(found, key=lambda explained: explained[0]["index"])
    rows = [row for _, unit in units for row in unit_rows(list(unit), wanted)]
    await respond(rows, shard.key["module"], context)
    return {SYNTHETIC_TEXTS.name: SYNTHETIC_TEXTS.of_rows(rows)}


async def written(shard: Shard, context: Context) -> list[tuple[Row, Texts]]:
    """The explanations of a shard's units, each with its texts; those of a unit in a row."""
    sasc = context.config[Sasc]
    synthesizer: Synthesizer = context.once(
        "synthesizer", lambda _: build_method(sasc.synthesizer, SYNTHESIZERS, context, sasc.synthesize_engine, context)
    )
    explained = rows_by_unit(context.tables, THEMES, shard.key)
    themes = [row for rows in explained.values() for row in rows if row["status"] == "ok"]

    async def write(theme: Row) -> Texts:
        await asyncio.sleep(0)  # an interruption takes effect between explanations
        return await write_texts(synthesizer, theme, context.config)

    found = await context.gather(write, themes, len(themes), units=len(shard.key["indices"]))
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


def unit_rows(unit: Sequence[tuple[Row, Texts]], wanted: int) -> list[Row]:
    """Rows of the texts of one unit, from its explanations and what was written for each.

    A kind without a text has a row without one. The first row of a kind carries the tokens that all of its texts took, and
    says why there are fewer than `wanted`.
    """
    halves = iter(deal([found for _, texts in unit for found in (texts.relevant, texts.baseline)]))
    rows: list[Row] = []
    for theme, texts in unit:
        for place, kind in enumerate(KINDS):
            found: list[str] = getattr(texts, kind)
            keys = {name: theme[name] for name in EXPLANATION_KEYS} | {"kind": kind, "origin": texts.origin}
            keys |= {"model": texts.model, "prompt_id": texts.prompt_ids[place], "status": "ok" if found else "failed"}
            keys |= {"prompt_tokens": 0, "completion_tokens": 0, "error": None}
            own = [
                keys | {"number": number, "half": half, "text": text}
                for number, (half, text) in enumerate(zip(next(halves), found, strict=True))
            ] or [keys | {"number": 0, "half": HALVES[0], "text": None}]
            own[0] |= {name: getattr(texts, name)[place] for name in ("prompt_tokens", "completion_tokens")}
            if len(found) < wanted:
                own[0]["error"] = texts.errors[place] or f"{len(found)} of {wanted} texts could be used"
            rows += own
    return rows


def deal(sets: Sequence[Sequence[str]]) -> list[list[str]]:
    """The half of each text of each set, so that what a text says is in one half alone, whichever sets it is in.

    Candidates of a unit share texts. One that published the winner's score and chose against a rival would have helped to
    choose after all. Each text goes to the half that evens out the sets it is in: those in many sets first, then by their
    places in the sets, so that both halves hold texts near to the explanation and less near ones. A set that shares nothing
    is dealt in turn. The sets are the texts for each candidate of one unit, and those against each.
    """
    holders: dict[str, list[int]] = {}
    for number, texts in enumerate(sets):
        for said in map(normalised_text, texts):
            holders.setdefault(said, []).append(number)
    lead = [0] * len(sets)  # texts in the first half less those in the second
    half: dict[str, str] = {}
    for said, numbers in sorted(holders.items(), key=lambda item: -len(item[1])):
        second = sum(lead[number] for number in numbers) > 0
        half[said] = HALVES[second]
        for number in numbers:
            lead[number] += -1 if second else 1
    return [[half[normalised_text(text)] for text in texts] for texts in sets]


async def respond(rows: Sequence[Row], module: str, context: Context) -> None:
    """Fill in the responses of each row's unit; one that is no number is a failed row.

    A black box is asked for each unit by itself, so that what fails on the texts of one says nothing of another,
    whichever units share a shard; the rows of a unit on which it fails say what it failed of.
    """
    asked = [row for row in rows if row["text"] is not None]
    if needs_model([module]):
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
    from pipeline.subjects.text_functions import open_text_function

    if not rows:
        return
    pool, texts = context.config[Sasc].pool, list(dict.fromkeys(row["text"] for row in rows))
    function = context.once(module, lambda config: open_text_function(with_nulls(config), module, pool))
    values = dict(zip(texts, function.values(texts), strict=True))
    for row in rows:
        value = float(values[row["text"]][row["index"]])
        if np.isfinite(value):
            row["response"] = value
        else:
            row |= {"status": "failed", "error": f"the response is {value}; give a number for every text"}


def check(config: RunConfig) -> None:
    """Raises UserError where the language model, its device, a prompt, or what the texts come from is not there."""
    check_engine(config[Sasc].synthesize_engine)
    refuse_unknown_prompts(config.run.prompts)
    settings(config)


SYNTHESIZE = Stage(
    name="synthesize",
    title="find or write texts for and against",
    reads=("explain.sasc", "corpus"),
    writes=(SYNTHETIC_TEXTS,),
    settings=settings,
    plan=unit_shards,
    process=process,
    check=check,
    asks=lambda config: model_use(
        "sasc.synthesizer", config[Sasc].synthesizer, SYNTHESIZERS, config[Sasc].synthesize_engine
    ),
    estimate=EstimateHints(asking=written, reply=lambda config: choice(SYNTHESIZERS, config[Sasc].synthesizer).reply),
    method="sasc",
    version=5,
)
