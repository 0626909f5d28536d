"""The contract of a stage: plain functions that plan shards and turn one shard into tables, and what these are given.

`process` is pure given its inputs, the run file and the replies of a language model. It never writes a file: only
the runner publishes.
"""

from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from pipeline.config import LanguageModel, RunConfig
from pipeline.execution.concurrency import bounded_gather
from pipeline.llm.engine import Capabilities, Request
from pipeline.schemas import TableSchema
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    import duckdb

Rows = Mapping[str, pa.Table | Iterable[pa.Table]]
"""The rows of each table by its name: all at once, or piece after piece where they would take too much memory."""


Unit = tuple[str, str, int]
"""A module, a polarity, and the index of a unit in the module."""


Methods = Mapping[str, str]
"""By which methods rows are made: names by the columns that hold them, such as {"explainer": "statistics"}."""


@dataclass(frozen=True)
class Shard:
    """A part of a stage's work that is published as a whole."""

    name: str
    """Stem of its files, such as part-00003."""
    key: Mapping[str, Any]
    """What it covers, in JSON values; kept in the footer so that a changed plan is noticed."""


@dataclass(frozen=True)
class ModelUse:
    """The language model that a stage asks."""

    model: LanguageModel
    method: str
    """What for: a setting and its value."""
    check: Callable[[Capabilities], None] = lambda _: None
    """Raises UserError where the model's server lacks what the method needs."""


@dataclass(frozen=True)
class EstimateHints:
    """What an estimate needs to know of a stage."""

    sizes: Callable[[RunConfig], Mapping[str, str]] = lambda _: {}
    """What it takes of a run, by names of quantities, from the run file and the configurations of models alone."""
    made_up_tables: Callable[[RunConfig, Tables, Sequence[Unit]], Mapping[str, pa.Table]] = lambda *_: {}
    """The tables that it will write, made up as large as the run file asks for: which units there are, and all that is known of
    the units given. They are made from the tables of the stages before it, which may be made up too."""
    asking: "Callable[[Shard, Context], Awaitable[Any]] | None" = None
    """The part of `process` that asks a language model; None for all of it."""
    reply: Callable[[RunConfig], Callable[[Request, int], str] | None] = lambda _: None
    """Makes up a usable reply, given its number, where what is asked next depends on replies."""
    replies_grow: bool = False
    """Whether longer questions have longer replies."""


@dataclass(frozen=True)
class Stage:
    """One step of the data flow."""

    name: str
    title: str
    """What it does, in a few words, for the progress bar and the help."""
    reads: tuple[str, ...] | Callable[[RunConfig], tuple[str, ...]]
    """Names of the stages whose tables it reads; a function where that depends on the run file."""
    writes: tuple[TableSchema, ...]
    """The tables it writes, one file each a shard; the last one is published last and marks the shard as done."""
    settings: Callable[[RunConfig], dict[str, Any]]
    """Whatever can change its rows: settings, identities of models, digests of prompts. Imports no model library."""
    plan: Callable[[RunConfig, Tables], list[Shard]]
    """The shards, given the finished tables of the stages it reads. Those whose key holds "indices" are of units: they stay as they
    were first planned, and units that are asked for later get further ones."""
    process: "Callable[[Shard, Context], Rows | Awaitable[Rows]]"
    """Tables by name, one for each of `writes`; a coroutine function where it waits for servers."""
    check: Callable[[RunConfig], None] = lambda _: None
    """Raises UserError where the stage could not work; called before the first shard of a run."""
    methods: Callable[[RunConfig], Sequence[Methods]] = lambda _: ({},)
    """The methods by which it works, one set after the other; each set has shards, settings and a fingerprint of its own."""
    pool: Callable[[RunConfig, Methods], tuple[str, Methods]] | None = None
    """The stage, and its methods, from whose rows about other units a shard by some methods takes its controls: from those that
    there are when the shard is planned. Its key names them as "pool", see `shards_of_pool`."""
    version: int = 1
    """Raised by hand where a change of the code changes the rows."""
    splits: tuple[str, ...] = ()
    """Splits of the exemplars that it may read."""
    method: str = ""
    """The method of run.methods that it belongs to; empty for all. Other runs plan no shard of it."""
    asks: Callable[[RunConfig], ModelUse | None] = lambda _: None
    """The language model whose engine `process` makes by `context.once("engine", ...)`; None where it makes none. Its
    shards are then units: {"module": name, "polarity": '+' or '-', "indices": list}, so that any of them can be worked at alone."""
    estimate: EstimateHints = EstimateHints()
    """What only estimates need of it."""

    def upstream(self, config: RunConfig) -> tuple[str, ...]:
        """Names of the stages whose tables it reads in a run."""
        if callable(self.reads):
            return self.reads(config) if self.takes_part(config) else ()
        return self.reads

    def inputs(self, config: RunConfig, upstream: Mapping[str, str]) -> dict[str, Any]:
        """All that can change its rows, the fingerprints of the stages it reads (`upstream`) among it."""
        return {
            "stage": self.name,
            "version": self.version,
            "schemas": [table.tag for table in self.writes],
            "settings": self.settings(config),
            "upstream": dict(upstream),
        }

    def by_methods(self, config: RunConfig) -> dict[str, RunConfig]:
        """The run file as it is for each set of methods, by the stage's name, with the methods where there are several sets."""
        found = self.methods(config) if self.takes_part(config) else ()
        words = [" ".join([self.name, *methods.values()]) if len(found) > 1 else self.name for methods in found]
        return {name: config.with_methods(methods) for name, methods in zip(words, found, strict=True)}

    def takes_part(self, config: RunConfig) -> bool:
        """Whether it belongs to a method of the run."""
        return not self.method or self.method in config.run.methods


@dataclass(frozen=True)
class MethodReport:
    """What a method of explaining units has to say once a run is finished."""

    table: str
    """The table that holds its scores; without it the method has nothing to say."""
    best: str
    """The query for its best explanations."""
    describe: "Callable[[duckdb.DuckDBPyConnection, Path, int], str]"
    """The report, from the views, the run's folder, and the seed for what is drawn at random."""
    score: str = "score"
    """What the score is called."""
    numbers: Mapping[str, str] = field(default_factory=dict)
    """The columns of the table that hold the score, that on the corpus as it is (corpus), the ends of the score's interval (low, high),
    the score on random sequences alone (random), its control, that of the full token table (lookup), the p_value, and the number of
    controls behind it (controls); those that the method has."""
    controls: str = ""
    """The setting for the number of controls."""


def numbered_shards(keys: Iterable[Mapping[str, Any]]) -> list[Shard]:
    """Shards that cover these parts, named by their place."""
    return [Shard(f"part-{number:05d}", key) for number, key in enumerate(keys)]


def chunks(items: list[Any], size: int) -> list[list[Any]]:
    """Consecutive parts of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


T = TypeVar("T")
R = TypeVar("R")


class Context:
    """The inputs of one stage. Its methods belong to the thread of the stage."""

    def __init__(self, config: RunConfig, stage: Stage, worker: str = "0-of-1") -> None:
        """worker: names this process among those that share the run's work."""
        self.config = config
        self.stage = stage
        self.worker = worker
        self.tables = Tables(config.root)
        self._made: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self.units_done = 0.0

    def once(self, name: str, make: Callable[[RunConfig], T]) -> T:
        """Something costly, such as a loaded model, made for the first shard and kept for the others."""
        if name not in self._made:
            self._made[name] = make(self.config)
        made: T = self._made[name]
        return made

    def latest(self, name: str, key: str, make: Callable[[RunConfig], T]) -> T:
        """As `once`, but what was made for another key is let go: of what there is for each module, one is in memory."""
        if self._keys.get(name) != key:
            self._made.pop(name, None)
            self._keys[name] = key
        return self.once(name, make)

    async def gather(
        self, work: Callable[[T], Awaitable[R]], items: Sequence[T], limit: int, units: int | None = None
    ) -> list[R]:
        """As `bounded_gather`, for the `units` of a shard or what they consist of; counts how much of them is done."""
        share = 1 if units is None else units / max(len(items), 1)

        async def counted(item: T) -> R:
            result = await work(item)
            self.units_done += share
            return result

        return await bounded_gather(counted, items, limit)

    def taken(self) -> list[str]:
        """What the stage's requests have taken so far, in words for people."""
        return [made.taken() for made in self._made.values() if hasattr(made, "taken")]

    def profile(self) -> dict[str, Any]:
        """What is known of the endpoint that the stage asks; empty without one."""
        found = [made.profile() for made in self._made.values() if hasattr(made, "profile")]
        return found[0] if found else {}

    def look_again(self, busy: Container[str]) -> None:
        """Learn what other workers have left, but for those at work (`busy`), before their shards are begun anew."""
        for made in self._made.values():
            if hasattr(made, "look_again"):
                made.look_again(busy)

    async def aclose(self) -> None:
        """Give back what was made and has to be given back, such as connections."""
        for made in self._made.values():
            if hasattr(made, "aclose"):
                await made.aclose()

    def permit(self, splits: Sequence[str]) -> None:
        """Refuse the exemplars of splits that are not the stage's own.

        Raises:
            PermissionError: the stage does not name one of the splits.
        """
        for split in splits:
            if split not in self.stage.splits:
                raise PermissionError(f"stage {self.stage.name!r} may not read the split {split!r}")
