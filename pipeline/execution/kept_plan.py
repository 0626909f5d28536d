"""The plan of a stage that works on units: what was planned stays as it is, and units that are asked for later get further shards.

A plan is kept in files that are written once: `_plans/STAGE/METHODS--0001.json` holds the first shards, later ones what came
later. All workers read them, so that they agree on the shards while some are finished and others are not.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.execution.stage import Shard, chunks
from pipeline.storage.atomic_files import publish_once
from pipeline.storage.footers import canonical
from pipeline.storage.stores import files_in

BESIDE_UNITS = {"indices", "pool"}


def grows(planned: Sequence[Shard]) -> bool:
    """Whether shards are of units, which can become more."""
    return any("indices" in shard.key for shard in planned)


def shard_name(methods: str, number: int) -> str:
    """Stem of the files of a shard: the methods that it is made by, joined by two hyphens, and its number."""
    return f"{methods or 'part'}{'--' if methods else '-'}{number:05d}"


def methods_of(name: str) -> str:
    """The methods in the stem of a file; empty where it names none."""
    return name.rpartition("--")[0]


class KeptPlan:
    """The shards of a stage by some methods that were planned so far."""

    def __init__(self, root: Path, stage: str, methods: str) -> None:
        """methods: joined as in `shard_name`."""
        self._methods, self._folder = methods, root / "_plans" / stage
        files = self._files()
        self._next = len(files) + 1
        self.shards: list[Shard] = [shard for file in files for shard in _read(file)]

    def _files(self) -> list[Path]:
        name = shard_name(self._methods, 0)[:-5]
        return [file for file in files_in(self._folder, f"{name}*.json") if file.stem[len(name) :].isdigit()]

    def further(self, planned: Sequence[Shard], pool: dict[str, Any]) -> list[Shard]:
        """Shards of the units that are asked for and in no shard yet, of the size of those planned.

        Args:
            planned: shards of all units that are asked for.
            pool: what further shards take for controls, as part of their keys.
        """
        covered = _units_of(self.shards)
        groups: dict[str, list[Shard]] = {}
        for shard in planned:
            groups.setdefault(_group(shard), []).append(shard)
        keys = [
            {**shards[0].key, **pool, "indices": part}
            for group, shards in groups.items()
            for part in chunks(
                [index for shard in shards for index in shard.key["indices"] if index not in covered.get(group, ())],
                max(len(shard.key["indices"]) for shard in shards),
            )
        ]
        return [Shard(shard_name(self._methods, len(self.shards) + place), key) for place, key in enumerate(keys)]

    def wanted(self, planned: Sequence[Shard], done: Collection[str]) -> list[Shard]:
        """The shards that hold a unit that is asked for now; those that are done stay, whatever is asked for."""
        asked = _units_of(planned)
        return [
            shard
            for shard in self.shards
            if shard.name in done or not asked.get(_group(shard), set()).isdisjoint(shard.key["indices"])
        ]

    def extend(self, shards: Sequence[Shard]) -> None:
        """Keep further shards; where another worker was faster, its shards stand, and the plan has to be looked at anew."""
        if {shard.name for shard in shards} & {shard.name for shard in self.shards}:
            return
        kept = {"shards": [vars(shard) for shard in shards]}
        content = canonical({**kept, "digest": _digest(kept)}).encode()
        publish_once(self._folder / f"{shard_name(self._methods, 0)[:-5]}{self._next:04d}.json", content)

    def forget(self) -> None:
        """Remove the plan, once the files of its shards are gone."""
        for file in reversed(self._files()):
            file.unlink(missing_ok=True)


def all_plans(root: Path, stage: str) -> Iterator[KeptPlan]:
    """The plans of a stage by whatever methods, those that are not asked for now too."""
    for methods in sorted({methods_of(file.stem) for file in files_in(root / "_plans" / stage, "*.json")}):
        yield KeptPlan(root, stage, methods)


def pool_of(names: Sequence[str]) -> dict[str, Any]:
    """Shards that hold the rows for controls, as part of a shard's key: their methods, and the first and last of each run of numbers."""
    runs: list[list[int]] = []
    for number in (int(name.rpartition("-")[2]) for name in names):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return {"methods": methods_of(names[0]) if names else "", "shards": runs}


def shards_of_pool(shard: Shard) -> list[str] | None:
    """Names of the shards that hold the rows which a shard takes for controls; None for all, where no plan says which."""
    if (pool := shard.key.get("pool")) is None:
        return None
    return [shard_name(pool["methods"], number) for first, last in pool["shards"] for number in range(first, last + 1)]


def _group(shard: Shard) -> str:
    """What units of a shard share: their module, polarity and methods."""
    return canonical({name: value for name, value in shard.key.items() if name not in BESIDE_UNITS})


def _units_of(shards: Iterable[Shard]) -> dict[str, set[int]]:
    """Indices by group."""
    found: dict[str, set[int]] = {}
    for shard in shards:
        found.setdefault(_group(shard), set()).update(shard.key["indices"])
    return found


def _read(file: Path) -> list[Shard]:
    try:
        kept = json.loads(file.read_bytes())
        if kept.pop("digest") != _digest(kept):
            raise ValueError("its digest does not fit")
        return [Shard(entry["name"], entry["key"]) for entry in kept["shards"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is damaged ({error}); it says which units the shards hold. Restore it, or give the run another name"
        ) from None


def _digest(kept: Mapping[str, Any]) -> str:
    return hashlib.blake2b(canonical(kept).encode(), digest_size=8).hexdigest()
