"""The contract of a stage: plain functions that plan shards and turn one shard into tables.

`process` is pure given its inputs, the run file and the replies of a language model. It never writes a file: only
the runner publishes.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from pipeline.config import LanguageModel, RunConfig
from pipeline.schemas import TableSchema
from pipeline.tables import Tables

if TYPE_CHECKING:
    from pipeline.context import Context
    from pipeline.llm.engine import Request


Rows = Mapping[str, pa.Table | Iterable[pa.Table]]
"""The rows of each table by its name: all at once, or piece after piece where they would take too much memory."""


@dataclass(frozen=True)
class Shard:
    """A part of a stage's work that is published as a whole."""

    name: str
    """Stem of its files, such as part-00003."""
    key: Mapping[str, Any]
    """What it covers, in JSON values; kept in the footer so that a changed plan is noticed."""


def nothing_to_check(config: RunConfig) -> None:
    """The check of a stage that has no input of its own."""


def nothing_more(config: RunConfig) -> tuple[str, ...]:  # noqa: ARG001 - the contract of a stage
    """A stage that reads the same tables in every run."""
    return ()


def nothing_is_asked(config: RunConfig) -> LanguageModel | None:  # noqa: ARG001 - the contract of a stage
    """A stage that has no engine."""
    return None


@dataclass(frozen=True)
class Stage:
    """One step of the data flow."""

    name: str
    title: str
    """What it does, in a few words, for the progress bar and the help."""
    reads: tuple[str, ...]
    """Names of the stages whose tables it reads in every run."""
    writes: tuple[TableSchema, ...]
    """The tables it writes, one file each a shard; the last one is published last and marks the shard as done."""
    settings: Callable[[RunConfig], dict[str, Any]]
    """Whatever can change its rows: settings, identities of models, digests of prompts. Imports no model library."""
    plan: Callable[[RunConfig, Tables], list[Shard]]
    """The shards, given the finished tables of the stages it reads."""
    process: "Callable[[Shard, Context], Rows | Awaitable[Rows]]"
    """Tables by name, one for each of `writes`; awaited where it waits for servers."""
    splits: tuple[str, ...] = ()
    """Splits of the exemplars that it may read."""
    also_reads: Callable[[RunConfig], tuple[str, ...]] = nothing_more
    """Names of the stages whose tables it reads only because a run file asks for it."""
    check: Callable[[RunConfig], None] = nothing_to_check
    """Raises UserError where the stage could not work; called before the first shard of a run."""
    in_flight: Callable[[RunConfig], int] | None = None
    """Shards under way at a time at most, where `process` is awaited; None where shards are computed one by one."""
    asks: Callable[[RunConfig], LanguageModel | None] = nothing_is_asked
    """The language model whose engine `process` has made by `context.once("engine", ...)`; None where it makes none. Its
    shards are then units: {"module": name, "polarity": '+' or '-', "indices": list}, so that any of them can be worked at by themselves."""
    asking: "Callable[[Shard, Context], Awaitable[Any]] | None" = None
    """What of `process` asks that model, where `process` does more than that; estimates run this alone."""
    replies_grow: bool = False
    """Whether what it asks of that model has longer replies to longer questions; only estimates go by it."""
    spends: tuple[TableSchema, ...] = ()
    """Tables of the stages in `reads`, of which no other stage reads any: their rows are removed once it is finished."""
    stand_in: "Callable[[Request, int], str] | None" = None
    """A reply that it can use, given the reply's number, where what it asks next depends on replies; for estimates."""
    method: Literal["", "simulation", "sasc"] = ""
    """The method of run.methods that it belongs to; empty for all. Other runs plan no shard of it."""
    version: int = 1
    """Raised by hand where a change of the code changes the rows."""

    def upstream(self, config: RunConfig) -> tuple[str, ...]:
        """Names of all stages whose tables it reads in a run."""
        return (*self.reads, *self.also_reads(config))

    def takes_part(self, config: RunConfig) -> bool:
        """Whether it belongs to a method of the run."""
        return not self.method or self.method in config.run.methods


def chunks(items: list[Any], size: int) -> list[list[Any]]:
    """Consecutive parts of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]
