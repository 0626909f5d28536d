"""What a shard has read, as digests: a shard whose input was made anew with other rows is noticed, and is made anew too."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.config import RunConfig
from pipeline.execution.kept_plan import shards_of_pool
from pipeline.execution.series import Progress, Series
from pipeline.execution.stage import Methods, Shard, Stage

UnitKey = tuple[str, str, int]


class ContentRead:
    """Digests of what the shards of a stage by some methods read."""

    def __init__(self, stage: Stage, methods: Methods, earlier: Mapping[str, Progress], config: RunConfig) -> None:
        self._upstream = {name: series for name in stage.upstream(config) if (series := earlier[name].by(methods))}
        self._holders = {name: _holders(series) for name, series in self._upstream.items()}
        self._pool: tuple[str, Series | None] = ("", None)
        if stage.pool is not None:
            name, pooled = stage.pool(config, methods)
            self._pool = f"{name}, controls", earlier[name].by(pooled)
        self._known: dict[tuple[str, int, str], str] = {}

    def of(self, shard: Shard) -> dict[str, str]:
        """By stage: of shards of units those that hold a unit of the shard, of others all; and those that controls are from."""
        found = {name: self._digest(name, series, shard) for name, series in self._upstream.items()}
        name, series = self._pool
        if series is not None:
            found[name] = self._of_shards(name, series, shards_of_pool(shard) or [])
        return found

    def _digest(self, name: str, series: Series, shard: Shard) -> str:
        holders = self._holders[name]
        if not holders or "indices" not in shard.key:
            return self._of_shards(name, series, [one.name for one in series.shards])
        held = dict.fromkeys(holders[unit] for unit in _units(shard) if unit in holders)
        return _combined(series, held)

    def _of_shards(self, name: str, series: Series, names: Sequence[str]) -> str:
        """Of many shards that most others read too."""
        key = name, len(names), names[-1] if names else ""
        if key not in self._known:
            self._known[key] = _combined(series, names)
        return self._known[key]


def _holders(series: Series) -> dict[UnitKey, str]:
    """The shard that holds each unit; none where shards are not of units."""
    return {unit: shard.name for shard in series.shards if "indices" in shard.key for unit in _units(shard)}


def _units(shard: Shard) -> list[UnitKey]:
    key: Mapping[str, Any] = shard.key
    return [(key["module"], key["polarity"], index) for index in key["indices"]]


def _combined(series: Series, names: Iterable[str]) -> str:
    contents = [[name, *(footer.content for footer in series.done.get(name, ()))] for name in names]
    return hashlib.blake2b(repr(contents).encode(), digest_size=8).hexdigest()
