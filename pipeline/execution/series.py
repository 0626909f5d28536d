"""How far a stage of a run is, by the methods that make its shards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import RunConfig
from pipeline.execution.stage import Methods, Shard, Stage
from pipeline.storage.footers import Footer


@dataclass(frozen=True)
class Series:
    """The shards of a stage that the same methods make."""

    config: RunConfig
    """The run file as it is for the methods."""
    methods: Methods
    inputs: Mapping[str, Any]
    """All that can change the rows; their hash is the fingerprint."""
    shards: list[Shard] = field(default_factory=list)
    further: list[Shard] = field(default_factory=list)
    """Those of the shards that are in no kept plan yet."""
    done: dict[str, list[Footer]] = field(default_factory=dict)
    """Footers of the finished shards, by shard name."""
    read: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """For each shard, by stage, a digest of the content of what it reads."""
    stale: list[str] = field(default_factory=list)
    """Names of shards that were made from other content than there is now; they are made anew."""

    @property
    def todo(self) -> list[Shard]:
        return [shard for shard in self.shards if shard.name not in self.done]

    @property
    def prefix(self) -> str:
        """The methods as they are part of the names of files."""
        return joined(self.methods)


def joined(methods: Methods) -> str:
    """Methods as they are part of the names of files; see `shard_name`."""
    return "--".join(methods.values())


@dataclass(frozen=True)
class Progress:
    """How far a stage is."""

    stage: Stage
    ready: bool
    """Whether the stages it reads are finished; before that its shards are not known."""
    series: list[Series]
    broken: list[str]
    """Names of shards whose last attempt ended in an error."""

    @property
    def shards(self) -> list[Shard]:
        return [shard for series in self.series for shard in series.shards]

    @property
    def done(self) -> dict[str, list[Footer]]:
        """Footers of the finished shards, by shard name."""
        return {name: footers for series in self.series for name, footers in series.done.items()}

    @property
    def todo(self) -> list[Shard]:
        return [shard for series in self.series for shard in series.todo]

    @property
    def finished(self) -> bool:
        return self.ready and not self.todo

    @property
    def inputs(self) -> Mapping[str, Any]:
        """All that can change the rows by its first methods."""
        return self.series[0].inputs if self.series else {}

    @property
    def failed_rows(self) -> int:
        return sum(footer.failed for footers in self.done.values() for footer in footers)

    @property
    def seconds_per_shard(self) -> float | None:
        """Mean time of the finished shards."""
        times = [footers[-1].seconds for footers in self.done.values()]
        return sum(times) / len(times) if times else None

    def by(self, methods: Methods) -> Series | None:
        """The shards that others read which are made by some methods; None where there are none."""
        fitting = (one for one in self.series if one.methods.items() <= methods.items())
        return next(fitting, None)
