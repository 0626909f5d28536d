"""What the stages of a run will ask of language models, counted by running them on a sample of units.

The code that writes the prompts of a run writes them here too, so an estimate cannot drift from what is sent. An engine that
counts takes the place of the language model. What a stage reads and is not finished yet is made up by the stages that will
write it (see EstimateHints).
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import LanguageModel, RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context, Shard, Stage, Unit
from pipeline.execution.survey import survey
from pipeline.llm.counting_engine import CountingEngine, Usage
from pipeline.llm.engine import Capabilities, NumberPrompt, Request
from pipeline.llm.load import find_tokenizer
from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import describe_model, load_tokenizer

Stages = Mapping[str, Stage]
Process = Callable[[Shard, Context], Coroutine[Any, Any, Any]]
Example = Request | NumberPrompt | None

SAMPLE = 32
"""Units whose prompts are written at most."""
ENOUGH = 1_000_000
"""Prompt tokens after which no further unit of the sample is taken."""


@dataclass(frozen=True)
class Demand:
    """What one stage asks of its language model."""

    stage: str
    """Its name, and the methods by which it works where it has several."""
    engine: LanguageModel
    usage: Usage
    units: int
    """Units that the stage works on."""
    rendered: int
    """Units of them whose prompts were written; their usage is scaled to all."""
    made_up: list[str]
    """Names of the tables behind the prompts that are made up, as they are not finished."""
    tokenizer: str
    """What the tokens were counted by, in words."""
    most_replies: int
    """The most replies that a single request wants."""
    example: Example
    """The first thing that it asks; None if it asks nothing."""


class SampleTables(Tables):
    """The tables of a run, some of them replaced by tables in memory."""

    def __init__(self, config: RunConfig, replaced: dict[str, pa.Table]) -> None:
        super().__init__(config.root)
        self.replaced = replaced

    def read(
        self,
        table: TableSchema,
        where: Any = None,
        columns: Sequence[str] | None = None,
        shards: Sequence[str] | None = None,
    ) -> pa.Table:
        """As `Tables.read`."""
        if table.name not in self.replaced:
            return super().read(table, where, columns, shards)
        rows = self.replaced[table.name]
        rows = rows if where is None else rows.filter(where)
        return rows.select(list(columns)) if columns else rows

    def numbered(self, table: TableSchema, numbers: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
        """As `Tables.numbered`."""
        if table.name not in self.replaced:
            return super().numbered(table, numbers, columns)
        return self.read(table, pc.field(table.key[0]).isin(sorted(set(numbers))), columns)

    def batches(
        self, table: TableSchema, where: Any = None, columns: Sequence[str] | None = None, rows: int = 1024
    ) -> Iterator[pa.RecordBatch]:
        """As `Tables.batches`."""
        yield from self.read(table, where, columns).to_batches(rows)


def demands(config: RunConfig, stages: Stages, most: int = SAMPLE) -> list[Demand]:
    """What each stage that asks a language model asks, in order, by the prompts of so many units at most.

    Nothing is sent, and no weights are read but those of an embedder, where it finds what a language model is asked about.

    Raises:
        UserError: a model that is named does not exist.
    """
    asking = [
        (words, stage, narrowed)
        for stage in stages.values()
        for words, narrowed in stage.by_methods(config).items()
        if stage.asks(narrowed) is not None
    ]
    finished = _finished(config, stages) if asking else set()
    return [_demand(words, stage, narrowed, stages, finished, most) for words, stage, narrowed in asking]


def _finished(config: RunConfig, stages: Stages) -> set[str]:
    """Stages whose tables are whole; from the first one on whose files do not fit the run file, none is."""
    names = list(stages) if config.root.is_dir() else []
    for count in range(len(names), 0, -1):
        try:
            found = survey(config, {name: stages[name] for name in names[:count]})
        except UserError:
            continue
        return {name for name, progress in found.items() if progress.finished}
    return set()


def _demand(words: str, stage: Stage, config: RunConfig, stages: Stages, finished: set[str], most: int) -> Demand:
    use, hints = stage.asks(config), stage.estimate
    assert use is not None, "only stages that ask have a demand"
    missing = [other for other in stages.values() if other.name not in finished]
    tables = SampleTables(
        config, {table.name: table.schema.empty_table() for other in missing for table in other.writes}
    )
    before = _before(stage, config, stages)

    def make_up(units: Sequence[Unit]) -> None:
        for other in missing:
            if other.name in before:
                tables.replaced |= other.estimate.made_up_tables(config, tables, units)

    make_up([])
    shards = stage.plan(config, tables)
    units = [(s.key["module"], s.key["polarity"], index) for s in shards for index in s.key["indices"]]
    order = np.random.default_rng(config.run.seed).permutation(len(units))
    sample = [units[place] for place in order[:most]]
    make_up(sample)
    tokenizer, counted_by = tokenizer_of(use.model, config)
    counter = CountingEngine(
        tokenizer, _context_of(use.model), _capabilities_of(use.model), hints.replies_grow, hints.reply(config)
    )
    counted = _count(stage, config, tables, counter, sample)
    made_up = [name for name, rows in tables.replaced.items() if rows.num_rows]
    usage = scaled(counted, len(units))
    return Demand(
        words, use.model, usage, len(units), len(counted), made_up, counted_by, counter.most_replies, counter.first
    )


def _before(stage: Stage, config: RunConfig, stages: Stages) -> set[str]:
    """Names of the stages that it reads, and of those that these read."""
    found: set[str] = set()
    for name in stage.upstream(config):
        found |= {name} | _before(stages[name], config, stages)
    return found


def _count(
    stage: Stage, config: RunConfig, tables: SampleTables, counter: CountingEngine, sample: Sequence[Unit]
) -> list[Usage]:
    """The usage of each unit of the sample, until it is ENOUGH."""
    context = Context(_without_limits(config), stage)
    context.tables = tables
    context.once("engine", lambda _: counter)
    process = cast(Process, stage.estimate.asking or stage.process)
    counted: list[Usage] = []
    for module, polarity, index in sample:
        shard = Shard("estimate", {"module": module, "polarity": polarity, "indices": [index]})
        asyncio.run(process(shard, context))
        counted.append(counter.take())
        if sum(usage.prompt_tokens for usage in counted) > ENOUGH:
            break
    return counted


def _without_limits(config: RunConfig) -> RunConfig:
    """The run file with language models whose useless replies, such as empty ones, stop no stage."""
    changed = {}
    for name, section in config:
        models = [(key, value) for key, value in section if isinstance(value, LanguageModel)]
        update = {key: model.model_copy(update={"max_failure_share": 1.0}) for key, model in models}
        changed[name] = section.model_copy(update=update)
    return config.model_copy(update=changed)


def scaled(counted: Sequence[Usage], units: int) -> Usage:
    """The usage of all units from that of some.

    What the first one computes beyond the mean of the others, such as the few-shot examples, is not computed again.
    """
    if not counted:
        return Usage()
    total = sum(counted, Usage())
    factor = units / len(counted)
    first, *others = (usage.computed_tokens for usage in counted)
    each = sum(others) / len(others) if others else first
    return Usage(
        round(total.calls * factor),
        round(total.prompt_tokens * factor),
        first + round(each * (units - 1)),
        round(total.likely_tokens * factor),
        round(total.most_tokens * factor),
    )


def tokenizer_of(engine: LanguageModel, config: RunConfig) -> tuple[Any, str]:
    """The tokenizer that comes closest to an engine's own, and what it is in words.

    Raises:
        UserError: the model that should hold it does not exist.
    """
    if engine.base_url is None:
        return load_tokenizer(engine.model, engine.trust_remote_code), "its own tokenizer"
    found = find_tokenizer(engine.model, engine.tokenizer, engine.trust_remote_code)
    if found is not None:
        return found, f"the tokenizer of {engine.tokenizer or engine.model}"
    subject = config.subject
    words = f"the subject's tokenizer, as its own is not known ({subject.model}; engine.tokenizer names a better one)"
    return load_tokenizer(subject.model, subject.trust_remote_code), words


def _context_of(engine: LanguageModel) -> int | None:
    """Tokens of prompt and reply together at most, as far as it is known without asking."""
    if engine.base_url is not None:
        return engine.context
    limits = [
        describe_model(engine.model, engine.trust_remote_code).context_length,
        load_tokenizer(engine.model, engine.trust_remote_code).model_max_length,
    ]
    return min((int(limit) for limit in limits if limit), default=None)


def _capabilities_of(engine: LanguageModel) -> Capabilities:
    """What an engine can do; an endpoint is taken to do everything, as it is not asked."""
    return Capabilities(
        20, reply_numbers=True, prompt_numbers=True, json_schema=engine.base_url is not None, n=True, seed=True
    )
