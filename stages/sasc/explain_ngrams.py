"""The explain.sasc stage: from the n-grams that a unit responds to, to what they share."""

import asyncio
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.errors import stops_the_shard
from pipeline.execution.stage import Context, EstimateHints, Rows, Shard, Stage, Unit
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import UNIT_KEYS
from pipeline.storage.tables import Tables
from stages.explain.explain_units import Candidate, ExplanationError
from stages.methods import build_method, model_use, prompt_digests
from stages.sasc import SUMMARISERS, Sasc
from stages.sasc.ngram_pieces import normalised_text
from stages.sasc.sasc_tables import NGRAMS, RESPONSES, THEMES
from stages.sasc.sasc_units import Row, rows_by_unit, unit_shards
from stages.units import draw, unit_name

DRAWS = 4
"""Draws for each candidate at most; one that leads to an explanation that is there already is drawn anew."""
FAILING = 3
"""Give up after this many draws without an explanation; what was found before is used."""
MADE_UP = "words of kind {} about life in towns and villages, such as streets, markets and neighbours"
Kept = Sequence[tuple[str, float]]
"""N-grams with their responses, by falling response."""


class Summariser(Protocol):
    """Says what drawn n-grams share."""

    async def explain(self, drawn: Sequence[str], kept: Kept, seed: int) -> Candidate:
        """One explanation of the drawn n-grams, which are by rank and among the kept ones.

        Raises:
            ExplanationError: nothing can be said of them.
        """
        ...


@dataclass(frozen=True)
class Theme:
    """An explanation and the n-grams that it was drawn from."""

    candidate: Candidate
    drawn: list[str]


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change an explanation."""
    sasc = config[Sasc]
    method = choice(SUMMARISERS, sasc.explainer)
    return {
        "seed": config.run.seed,
        "sasc": sasc.model_dump(include={"top", "shown", "candidates", "explainer"}),
        "engine": engine_settings(sasc.explain_engine),
        "prompts": prompt_digests(method, sasc.explain_engine, config.run.prompts),
        **method.settings(sasc),
    }


async def process(shard: Shard, context: Context) -> Rows:
    """Explain the units of one shard, side by side where an endpoint is asked."""
    sasc = context.config[Sasc]
    summariser: Summariser = context.once(
        "summariser", lambda _: build_method(sasc.explainer, SUMMARISERS, sasc, sasc.explain_engine, context)
    )
    responses, ngrams = (rows_by_unit(context.tables, table, shard.key) for table in (RESPONSES, NGRAMS))

    async def explain(index: int) -> list[Row]:
        return await explain_unit(summariser, responses[index][0], ngrams[index], context.config)

    indices = shard.key["indices"]
    remote = sasc.explain_engine is not None and sasc.explain_engine.base_url is not None
    found = await context.gather(explain, indices, len(indices) if remote else 1)
    return {THEMES.name: THEMES.of_rows([row for unit in found for row in unit])}


async def explain_unit(summariser: Summariser, unit: Row, ngrams: list[Row], config: RunConfig) -> list[Row]:
    """Rows of the themes of one unit, from its rows of `responses` and `ngrams`; if it cannot be explained, one row says why."""
    await asyncio.sleep(0)  # an interruption takes effect between units
    keys = {name: unit[name] for name in UNIT_KEYS} | {"explainer": f"sasc_{config[Sasc].explainer}"}
    nothing = keys | Candidate("").columns() | {"candidate": 0, "ngrams_shown": []}
    if unit["status"] != "ok":
        return [nothing | {"status": unit["status"], "error": unit["error"]}]
    sign = 1.0 if unit["polarity"] == "+" else -1.0
    kept = [(row["text"], sign * row["response"]) for row in sorted(ngrams, key=lambda row: row["rank"])]
    name = unit_name(unit["module"], unit["index"], unit["polarity"])
    seed = int(draw(config.run.seed, f"themes/{name}").integers(2**31))
    try:
        found = await themes(summariser, kept, config[Sasc], seed)
    except ExplanationError as error:
        spent = {"prompt_tokens": error.prompt_tokens, "completion_tokens": error.completion_tokens}
        return [nothing | spent | {"status": "failed", "error": str(error)}]
    except Exception as error:
        if stops_the_shard(error):
            raise
        return [nothing | {"status": "failed", "error": f"{type(error).__name__}: {error}"}]
    return [
        keys | theme.candidate.columns() | {"candidate": number, "ngrams_shown": theme.drawn, "status": "ok"}
        for number, theme in enumerate(found)
    ]


async def themes(summariser: Summariser, kept: Kept, sasc: Sasc, seed: int) -> list[Theme]:
    """Up to sasc.candidates different explanations, each from another draw, in the order in which they were found.

    The tokens that a repeated explanation took are added to the first one of it, those of failing draws to the first of all.

    Raises:
        ExplanationError: nothing can be said of any draw; it carries the tokens that all of them took.
    """
    found: dict[str, Theme] = {}
    failures: list[ExplanationError] = []
    drawn = draws([text for text, _ in kept], sasc, np.random.default_rng(seed))
    for number, shown in enumerate(itertools.islice(drawn, DRAWS * sasc.candidates)):
        try:
            candidate = await summariser.explain(shown, kept, seed + number)
        except ExplanationError as error:
            failures.append(error)
        else:
            same = normalised_text(candidate.text)
            found[same] = _charged(found[same], candidate) if same in found else Theme(candidate, shown)
        if len(found) == sasc.candidates or len(failures) == FAILING:
            break
    if not found:
        raise ExplanationError(str(failures[-1]), *_tokens(failures)) from failures[-1]
    first, *others = found.values()
    return [_charged(first, *failures), *others]


def draws(ngrams: Sequence[str], sasc: Sasc, rng: np.random.Generator) -> Iterator[list[str]]:
    """Random sets of sasc.shown of the first sasc.top n-grams, in the order of their rank, without an end.

    Singh et al. 2023, section 3: 30 of the top 50. Where there are fewer n-grams than that, all of them.
    """
    top = list(ngrams[: sasc.top])
    while True:
        chosen = np.sort(rng.permutation(len(top))[: sasc.shown])
        yield [top[place] for place in chosen]


def _charged(theme: Theme, *spent: Candidate | ExplanationError) -> Theme:
    """The theme with the tokens of others added to its own."""
    prompt_tokens, completion_tokens = _tokens([theme.candidate, *spent])
    candidate = replace(theme.candidate, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
    return replace(theme, candidate=candidate)


def _tokens(spent: Sequence[Candidate | ExplanationError]) -> tuple[int, int]:
    """Of all prompts and of all replies."""
    return sum(one.prompt_tokens for one in spent), sum(one.completion_tokens for one in spent)


def check(config: RunConfig) -> None:
    """Raises UserError where the language model, its device, a prompt, or what the summariser works with is not there."""
    check_engine(config[Sasc].explain_engine)
    refuse_unknown_prompts(config.run.prompts)
    settings(config)


def made_up_themes(config: RunConfig, tables: Tables, units: Sequence[Unit]) -> Mapping[str, pa.Table]:
    """As many explanations as a unit may have, of those of the units that respond to n-grams."""
    rows = tables.read(RESPONSES, pc.field("status") == "ok", ["module", "polarity", "index"]).to_pydict()
    answered, count = set(zip(*rows.values(), strict=True)), config[Sasc].candidates
    listed = [
        {"module": module, "polarity": polarity, "index": index, "candidate": number, "status": "ok",
         "text": MADE_UP.format(place * count + number)}
        for place, (module, polarity, index) in enumerate(units) if (module, polarity, index) in answered
        for number in range(count)
    ]  # fmt: skip
    return {THEMES.name: THEMES.of_rows(listed)}


EXPLAIN = Stage(
    name="explain.sasc",
    title="say what n-grams share",
    reads=("ngrams.merge",),
    writes=(THEMES,),
    settings=settings,
    plan=unit_shards,
    process=process,
    check=check,
    asks=lambda config: model_use("sasc.explainer", config[Sasc].explainer, SUMMARISERS, config[Sasc].explain_engine),
    estimate=EstimateHints(
        made_up_tables=made_up_themes, reply=lambda config: choice(SUMMARISERS, config[Sasc].explainer).reply
    ),
    method="sasc",
    version=5,
)
