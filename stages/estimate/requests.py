"""What the stages will ask of language models, found by running them on a sample of units with an engine that counts.

The code that renders the prompts of a run renders them here, so an estimate cannot drift from what is sent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pipeline.config import LanguageModel, RunConfig
from pipeline.errors import UserError
from pipeline.execution.context import Context
from pipeline.execution.runner import Stages, survey
from pipeline.execution.stage import Asking, Shard, Stage
from pipeline.llm.counting_engine import CountingEngine, Usage
from pipeline.llm.endpoint.tokenizers import find_tokenizer
from pipeline.llm.engine import Capabilities
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.model_facts import describe_model
from stages.asking import Asker
from stages.estimate.evidence_sample import sample_with_evidence
from stages.estimate.ngram_sample import sample_with_ngrams
from stages.estimate.sample import SampleTables, Unit

Process = Callable[[Shard, Context], Awaitable[Any]]

ENOUGH = 1_000_000
"""Prompt tokens after which no further unit of the sample is rendered."""


@dataclass(frozen=True)
class Demand:
    """What one stage asks of its language model."""

    stage: str
    engine: LanguageModel
    usage: Usage
    units: int
    """Units that the stage works on."""
    rendered: int
    """Units of them whose prompts were rendered; their usage is scaled to all."""
    inputs: str
    """What the prompts were made of, in words."""
    tokenizer: str
    """What the tokens were counted by, in words."""
    most_replies: int
    """The most replies that a single request wants."""


def demands(config: RunConfig, stages: Stages) -> list[Demand]:
    """What each stage that asks a language model asks, in order; nothing is sent and no weights are read.

    But for those of sasc.embedder, where it finds the words that a language model is to label.

    Raises:
        UserError: a model that is named does not exist.
    """
    asking = [stage for stage in stages.values() if stage.takes_part(config) and stage.asks(config) is not None]
    if not asking:
        return []
    finished = finished_tables(config, stages)
    return [_demand(stage, config, stages, finished) for stage in asking]


def finished_tables(config: RunConfig, stages: Stages) -> set[str]:
    """Names of the tables in the run's folder that are whole and fit the run file; a stage that does not fit ends it."""
    if not config.root.is_dir():
        return set()
    names = list(stages)
    for count in range(len(names), 0, -1):
        try:
            found = survey(config, {name: stages[name] for name in names[:count]})
        except UserError:
            continue
        return {table.name for progress in found.values() if progress.finished for table in progress.stage.writes}
    return set()


def _demand(stage: Stage, config: RunConfig, stages: Stages, finished: set[str]) -> Demand:
    use, asking = stage.asks(config), stage.estimate or Asking()
    assert use is not None, "only stages that ask have a demand"
    engine = use.model
    tables = SampleTables(config.root)
    prepared = sample_with_ngrams if stage.method == "sasc" else sample_with_evidence
    sample = prepared(stage, config, stages, finished, tables)
    tokenizer, words = tokenizer_of(engine, config)
    counter = CountingEngine(
        tokenizer, context_of(engine), capabilities_of(engine), asking.replies_grow, asking.stand_in
    )
    counted = _count(stage, config, tables, counter, sample.drawn)
    usage = scaled(counted, len(sample.units))
    return Demand(
        stage.name, engine, usage, len(sample.units), len(counted), sample.inputs, words, counter.most_replies
    )


def _count(
    stage: Stage, config: RunConfig, tables: SampleTables, counter: CountingEngine, sample: Sequence[Unit]
) -> list[Usage]:
    """The usage of each unit of the sample, until it is ENOUGH."""
    context = Context(config, stage)
    context.tables = tables
    context.once("engine", lambda _: counter)
    context.once("asker", lambda _: Asker(counter))  # whose empty replies stop no stage
    counted: list[Usage] = []
    for module, polarity, index in sample:
        shard = Shard("estimate", {"module": module, "polarity": polarity, "indices": [index]})
        asyncio.run(_processed(stage, shard, context))
        counted.append(counter.take())
        if sum(usage.prompt_tokens for usage in counted) > ENOUGH:
            break
    return counted


async def _processed(stage: Stage, shard: Shard, context: Context) -> None:
    asking = stage.estimate.process if stage.estimate else None
    await (asking or cast(Process, stage.process))(shard, context)


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


def context_of(engine: LanguageModel) -> int | None:
    """Tokens of prompt and reply together at most, as far as it is known without asking."""
    if engine.base_url is not None:
        return engine.context
    limits = [
        describe_model(engine.model, engine.trust_remote_code).context_length,
        load_tokenizer(engine.model, engine.trust_remote_code).model_max_length,
    ]
    return min((int(limit) for limit in limits if limit), default=None)


def capabilities_of(engine: LanguageModel) -> Capabilities:
    """What an engine can do; an endpoint is taken to do everything, as it is not asked."""
    return Capabilities(
        20, reply_numbers=True, prompt_numbers=True, json_schema=engine.base_url is not None, n=True, seed=True
    )
