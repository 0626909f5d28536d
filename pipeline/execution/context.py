"""What a stage's `process` is given: the run file, the finished tables, and what is made once for all shards."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pipeline.config import RunConfig
from pipeline.execution.stage import Stage
from pipeline.storage.tables import Tables

T = TypeVar("T")


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
