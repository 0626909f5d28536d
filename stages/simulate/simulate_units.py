"""The simulate stage: explanations to expected activations on sequences that the explainer has not seen.

Beside every explanation the controls are simulated on the same report sequences: explanations of other units of the
module (`shuffled`), the bare top token (`top_token`), a sentence that suits every unit (`constant`), and the token
lookup table (`lookup`). Only tokens and a text ever reach a simulator.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from pydantic import BaseModel, FiniteFloat, ValidationError

from pipeline.config import LanguageModel, RunConfig
from pipeline.config.section import choice
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.execution.kept_plan import shards_of_pool
from pipeline.execution.stage import Context, EstimateHints, Methods, Rows, Shard, Stage
from pipeline.llm.engine import NUMBERS
from pipeline.llm.load import check_engine, engine_settings
from pipeline.prompts import refuse_unknown_prompts
from pipeline.schemas import EXPLANATION_KEYS, EXPLANATIONS, SIMULATIONS
from stages.by_hand import controls_by, explainers, of_explainer, round_of
from stages.estimates import simulate_sizes
from stages.evidence import RecordedUnits, TopToken
from stages.methods import Method, model_use, open_method, prompt_digests
from stages.settings import Explain, Simulate
from stages.simulate import SIMULATORS
from stages.units import draw, unit_name, unit_shards

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]
SCALE = 10.0
"""Expected activations run from 0 to SCALE."""
JOBS_AT_ONCE = 8
"""Explanations simulated side by side on one unit, behind an endpoint."""
ALL_JOBS = 1_000_000
"""In a batch, which is submitted when all has been asked."""
CONSTANT = "ordinary English text"
LOOKUP = "lookup"


@dataclass(frozen=True)
class Simulation:
    """The activations expected on one sequence of T tokens."""

    expected: Floats | None
    """(T,) from 0 to SCALE; None where nothing could be simulated."""
    coverage: Floats | None
    """(T,) probability mass that the model put on the numbers; 1 where the method has no such mass."""
    error: str = ""
    prompt_tokens: int = 0
    """Tokens read for it; where one request covers several sequences, the first of them carries all."""
    completion_tokens: int = 0

    @classmethod
    def failed(cls, error: str) -> "Simulation":
        """One without values, and why."""
        return cls(None, None, error)

    @classmethod
    def certain(cls, values: npt.ArrayLike) -> "Simulation":
        """One by a method without probabilities: the coverage is 1 throughout."""
        expected = np.asarray(values, dtype=np.float32)
        return cls(expected, np.ones_like(expected))

    @classmethod
    def from_probabilities(cls, probabilities: Floats, coverage: Floats) -> "Simulation":
        """The mean number at each token; an error where some token's numbers have no probability at all.

        Args:
            probabilities: (T, 11), each row sums to 1.
            coverage: (T,) probability of all numbers together.
        """
        if missing := int((coverage <= 0).sum()):
            return cls.failed(f"no number found at {missing} of {len(coverage)} tokens")
        expected = probabilities @ np.array(NUMBERS, dtype=np.float32)  # (T, 11) -> (T,)
        return cls(expected.astype(np.float32), coverage)


class Simulator(Protocol):
    """Predicts a unit's activations from words alone: it sees tokens and the explanation, nothing else."""

    prompt_id: str
    """Prompt in prompts/ and its version; empty without one."""
    model: str
    """The language model that takes part; empty where none does."""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """One Simulation for each sequence, in order."""
        ...


class TokenTable(BaseModel):
    """The table as it is written into the text of an explanation, in JSON."""

    tokens: list[tuple[str, FiniteFloat]]
    """Tokens with their means."""
    rest: FiniteFloat | None
    """Mean activation of all tokens not listed; None where it is not known, and then they count as 0."""


def render_table(top_tokens: Sequence[TopToken], rest_mean: float | None = None) -> str:
    """A TokenTable as text; means have six significant digits.

    Tokens that look alike (several ids of one text) become one, their means weighed by their counts.

    Raises:
        ValueError: a mean is not finite.
    """
    sums: dict[str, tuple[float, int]] = {}
    for entry in top_tokens:
        total, count = sums.get(entry.token, (0.0, 0))
        sums[entry.token] = (total + entry.mean_activation * entry.count, count + entry.count)
    tokens = [(token, float(f"{total / count:.6g}")) for token, (total, count) in sums.items() if count]
    return TokenTable(tokens=tokens, rest=rest_mean).model_dump_json()


class LookupSimulator:
    """Predicts from a table that `render_table` wrote, and from nothing else.

    A token's value is max(0, mean), a token not listed has that of the rest; all are scaled by one factor so that the
    largest mean of the table is 10.
    """

    prompt_id = model = ""

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        """See `Simulator`; every Simulation has an error where the explanation is no table."""
        try:
            table = TokenTable.model_validate_json(explanation)
        except ValidationError as error:
            fault = error.errors()[0]["msg"]
            message = f"the explanation is no token table ({fault}); `lookup` reads only what its own table writes"
            return [Simulation.failed(message) for _ in sequences]
        means, rest = dict(table.tokens), table.rest or 0.0
        largest = max([*means.values(), rest])
        scale = largest if largest > 0 else np.inf
        values = [np.array([means.get(token, rest) for token in tokens], np.float64) for tokens in sequences]
        return [Simulation.certain(SCALE * (np.maximum(value, 0.0) / scale)) for value in values]


@dataclass(frozen=True)
class Job:
    """One text to simulate for one unit: on the select and the report sequences, or as a control on the latter alone."""

    keys: Row
    """Of the rows: module, index, polarity, explainer, candidate."""
    control: str
    source: int
    text: str


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change a simulation."""
    simulate = config[Simulate]
    method = choice(SIMULATORS, simulate.used)
    return {
        "seed": config.run.seed,
        "simulate": simulate.model_dump(exclude={"shard_units", "engine", "embedder", "variants"}),
        "engine": engine_settings(simulate.engine),
        "prompts": prompt_digests(method, simulate.engine, config.run.prompts),
        **method.settings(simulate),
    }


async def process(shard: Shard, context: Context) -> Rows:
    """Simulate the explanations and the controls of the units of one shard, units side by side."""
    module, indices, polarity = shard.key["module"], shard.key["indices"], shard.key["polarity"]
    simulate, recorded = context.config[Simulate], RecordedUnits.of(context)
    simulator = await open_method("simulator", simulate.used, SIMULATORS, simulate, simulate.engine, context)
    explained, is_unit = pc.field("text").is_valid(), context.tables.is_unit(module, indices, polarity)
    mine = is_unit & explained & of_explainer(context.config[Explain].name)
    own: list[Row] = context.tables.read(EXPLANATIONS, mine).to_pylist()
    where = (
        (pc.field("module") == module) & (pc.field("polarity") == polarity) & explained & (pc.field("candidate") == 0)
    )
    pool: list[Row] = context.once(
        f"explanations of {module} {polarity} {shard.key.get('pool')}",
        lambda _: context.tables.read(EXPLANATIONS, where, shards=shards_of_pool(shard)).to_pylist(),
    )
    sequences = await asyncio.to_thread(recorded.sequences, module, indices, ("select", "report"), polarity)
    tokens = await asyncio.to_thread(recorded.tokens, [seq_id for pairs in sequences.values() for seq_id, _ in pairs])
    top_tokens = await asyncio.to_thread(recorded.top_tokens, module, indices, polarity)
    units_at_once, jobs_at_once = _at_once(simulate.engine, len(indices))

    async def work(index: int) -> list[Row]:
        jobs = unit_jobs(index, own, pool, top_tokens[index], context.config)
        return await simulate_unit(jobs, sequences[index], tokens, simulator, simulate.name, jobs_at_once)

    rows = [row for unit in await context.gather(work, indices, units_at_once) for row in unit]
    return {SIMULATIONS.name: SIMULATIONS.of_rows(rows)}


def _at_once(engine: LanguageModel | None, units: int) -> tuple[int, int]:
    """Units side by side, and explanations of one unit: all of a batch, one after the other in this process."""
    if engine is None or engine.base_url is None:
        return 1, 1
    return units, JOBS_AT_ONCE if engine.mode == "live" else ALL_JOBS


def unit_jobs(
    index: int, explanations: list[Row], pool: list[Row], top_tokens: list[TopToken], config: RunConfig
) -> list[Job]:
    """What is simulated for one unit: its candidates, then the controls.

    Args:
        explanations: rows of the explanations table, those of the unit among them.
        pool: the first candidates of units of the module, of the same polarity.
    """
    own = [row for row in explanations if row["index"] == index]
    others = [row for row in pool if row["index"] != index]
    if not own:
        return []
    jobs = [Job({name: row[name] for name in EXPLANATION_KEYS}, "", index, row["text"]) for row in own]
    keys = jobs[0].keys | {
        "candidate": round_of(config[Explain].name)
    }  # which tells those of explanations by hand apart
    rng = draw(config.run.seed, "controls/" + unit_name(keys["module"], index, keys["polarity"]))
    drawn = [others[place] for place in rng.permutation(len(others))[: config[Simulate].controls]]
    jobs += [Job(keys, "shuffled", row["index"], row["text"]) for row in drawn]
    jobs.append(Job(keys, "constant", index, CONSTANT))
    words = [token for top in top_tokens if (token := top.token.strip()) and '"' not in token]
    if words:
        jobs.append(Job(keys, "top_token", index, f'the token "{words[0]}"'))
    if top_tokens:
        jobs.append(Job(keys, LOOKUP, index, render_table(top_tokens)))
    return jobs


async def simulate_unit(
    jobs: list[Job],
    sequences: list[tuple[int, str]],
    tokens: Mapping[int, list[str]],
    simulator: Simulator,
    name: str,
    at_once: int,
) -> list[Row]:
    """Rows of the simulations table for one unit.

    Args:
        sequences: (seq_id, split) of the unit.
        name: that of the simulator.
        at_once: explanations under way at a time.
    """

    async def simulate(job: Job) -> list[Row]:
        shown = [(seq_id, split) for seq_id, split in sequences if split == "report" or not job.control]
        method = LookupSimulator() if job.control == LOOKUP else simulator
        said = {
            **job.keys,
            "simulator": name,
            "control": job.control,
            "source": job.source,
            "model": method.model,
            "prompt_id": method.prompt_id,
        }
        await asyncio.sleep(0)  # an interruption takes effect between explanations
        try:
            results = await method.simulate(job.text, [tokens[seq_id] for seq_id, _ in shown])
        except Exception as error:
            if stops_the_shard(error):
                raise
            results = [Simulation.failed(f"{type(error).__name__}: {error}") for _ in shown]
        return [
            {**said, "seq_id": seq_id, "split": split, **vars(result), "error": result.error or None}
            | {"status": "failed" if result.expected is None else "ok"}
            for (seq_id, split), result in zip(shown, results, strict=True)
        ]

    return [row for rows in await bounded_gather(simulate, jobs, at_once) for row in rows]


def simulations(config: RunConfig) -> list[Methods]:
    """Every explainer with every simulator."""
    return [{**explainer, "simulator": name} for explainer in explainers(config) for name in config[Simulate].names]


def check(config: RunConfig) -> None:
    """Raises UserError where a model that simulates, its device or a prompt is not there."""
    refuse_unknown_prompts(config.run.prompts)
    settings(config)
    check_engine(config[Simulate].engine)


SIMULATE = Stage(
    name="simulate",
    title="simulate activations",
    reads=("explain", "record.merge", "corpus"),
    writes=(SIMULATIONS,),
    settings=settings,
    plan=lambda config, tables: unit_shards(config, tables, config[Simulate].shard_units),
    process=process,
    splits=("select", "report"),
    check=check,
    methods=simulations,
    pool=lambda config, methods: ("explain", {"explainer": controls_by(config, methods)}),
    asks=lambda config: model_use("simulator", config[Simulate].used, SIMULATORS, config[Simulate].engine),
    estimate=EstimateHints(simulate_sizes, replies_grow=True),
    method="simulation",
)
LOOKUP_METHOD = Method(
    "each token's mean activation, from a table instead of an explanation", lambda *_: LookupSimulator(), model="none"
)
