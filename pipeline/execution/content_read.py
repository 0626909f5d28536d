"""What a shard has read, as digests: a shard whose input was made anew with other rows is noticed, and is made anew too."""

import hashlib
from collections.abc import Iterable, Mapping

from pipeline.config import RunConfig
from pipeline.execution.kept_plan import shards_of_pool
from pipeline.execution.series import Progress, Series
from pipeline.execution.stage import Methods, Shard, Stage


class ContentRead:
    """Digests of what the shards of a stage by some methods read."""

    def __init__(self, stage: Stage, methods: Methods, earlier: Mapping[str, Progress], config: RunConfig) -> None:
        self._upstream = {name: series for name in stage.upstream(config) if (series := earlier[name].by(methods))}
        self._holders = {name: _holders(series) for name, series in self._upstream.items()}
        self._pool: tuple[str, Series | None] = ("", None)
        if stage.pool is not None:
            name, pooled = stage.pool(config, methods)
            self._pool = f"{name}, controls", earlier[name].by(pooled)
        self._known: dict[str, str] = {}
        self._pools: dict[str, str] = {}

    def of(self, shard: Shard) -> dict[str, str]:
        """By stage: of shards of units those that hold a unit of the shard, of others all; and those that controls are from."""
        found = {name: self._digest(name, series, shard) for name, series in self._upstream.items()}
        name, series = self._pool
        if series is not None:
            pool = repr(shard.key.get("pool"))  # most shards have the same one, with as many names as there are shards
            if pool not in self._pools:
                self._pools[pool] = _combined(series, shards_of_pool(shard) or [])
            found[name] = self._pools[pool]
        return found

    def _digest(self, name: str, series: Series, shard: Shard) -> str:
        holders = self._holders[name]
        if not holders or "indices" not in shard.key:
            if name not in self._known:  # most others read all of them too
                self._known[name] = _combined(series, [one.name for one in series.shards])
            return self._known[name]
        own = holders.get(_group(shard), {})
        held = dict.fromkeys(own[index] for index in shard.key["indices"] if index in own)
        return _combined(series, held)


def _holders(series: Series) -> dict[tuple[str, str], dict[int, str]]:
    """By module and polarity, the shard that holds each unit; none where shards are not of units."""
    found: dict[tuple[str, str], dict[int, str]] = {}
    for shard in series.shards:
        if "indices" in shard.key:
            found.setdefault(_group(shard), {}).update(dict.fromkeys(shard.key["indices"], shard.name))
    return found


def _group(shard: Shard) -> tuple[str, str]:
    return shard.key["module"], shard.key["polarity"]


def _combined(series: Series, names: Iterable[str]) -> str:
    contents = [[name, *(footer.content for footer in series.done.get(name, ()))] for name in names]
    return hashlib.blake2b(repr(contents).encode(), digest_size=8).hexdigest()
