"""What a stage's `process` is given: the run file, the finished tables, and the evidence it may see."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.evidence import BANDS, Evidence, Exemplar, TopToken
from pipeline.schemas import CORPUS, EXEMPLARS, UNITS
from pipeline.stage import Stage
from pipeline.tables import Tables

T = TypeVar("T")


class Context:
    """The inputs of one stage. No stage can read a split of the exemplars that is not its own."""

    def __init__(self, config: RunConfig, stage: Stage, worker: str = "0-of-1") -> None:
        """worker: names this process among those that share the run's work."""
        self.config = config
        self.stage = stage
        self.worker = worker
        self.tables = Tables(config.root)
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[RunConfig], T]) -> T:
        """Something costly, such as a loaded model, made for the first shard and kept for the others."""
        if name not in self._made:
            self._made[name] = make(self.config)
        made: T = self._made[name]
        return made

    async def aclose(self) -> None:
        """Give back what was made and has to be given back, such as connections."""
        for made in self._made.values():
            if hasattr(made, "aclose"):
                await made.aclose()

    def tokens(self, seq_ids: Sequence[int]) -> dict[int, list[str]]:
        """Token texts of some sequences of the corpus."""
        where = ds.field("seq_id").isin(sorted(set(seq_ids)))
        rows = self.tables.read(CORPUS, where, ["seq_id", "tokens"]).to_pydict()
        return dict(zip(rows["seq_id"], rows["tokens"], strict=True))

    def exemplars(self, module: str, indices: Sequence[int], splits: Sequence[str]) -> dict[int, list[Exemplar]]:
        """The exemplars of some units, `top` first, then `quantile`, then `random`, each by rank.

        Raises:
            PermissionError: the stage does not own one of the splits.
        """
        self._permit(splits)
        where = self.tables.is_unit(module, indices) & ds.field("split").isin(list(splits))
        rows = self.tables.read(EXEMPLARS, where).to_pylist()
        rows.sort(key=lambda row: (BANDS.index(row["band"]), splits.index(row["split"]), row["rank"]))
        texts = self.tokens([row["seq_id"] for row in rows])
        skip = self.config.record.skip_positions
        found: dict[int, list[Exemplar]] = {index: [] for index in indices}
        for row in rows:
            activations = np.asarray(row["activations"], dtype=np.float32)
            activations[:skip] = np.nan
            activations[~np.isfinite(activations)] = np.nan
            exemplar = Exemplar(row["seq_id"], row["band"], texts[row["seq_id"]], activations, row["split"])
            found[row["index"]].append(exemplar)
        return found

    def sequences(self, module: str, indices: Sequence[int], splits: Sequence[str]) -> dict[int, list[tuple[int, str]]]:
        """(seq_id, split) of the exemplars of some units, without their activations; each once, in seq_id order."""
        self._permit(splits)
        where = self.tables.is_unit(module, indices) & ds.field("split").isin(list(splits))
        rows = self.tables.read(EXEMPLARS, where, ["index", "seq_id", "split"]).to_pylist()
        found: dict[int, set[tuple[int, str]]] = {index: set() for index in indices}
        for row in rows:
            found[row["index"]].add((row["seq_id"], row["split"]))
        return {index: sorted(pairs) for index, pairs in found.items()}

    def evidence(self, module: str, indices: Sequence[int]) -> list[Evidence]:
        """What an explainer may see of some units."""
        exemplars = self.exemplars(module, indices, ["explain"])
        tokens = self.top_tokens(module, indices)
        return [Evidence(module, index, "+", exemplars[index], tokens[index]) for index in indices]

    def top_tokens(self, module: str, indices: Sequence[int]) -> dict[int, list[TopToken]]:
        """The tokens with the highest mean activation over the `explain` sequences."""
        rows = self.tables.read(UNITS, self.tables.is_unit(module, indices), ["index", "top_tokens"]).to_pylist()
        return {
            row["index"]: [TopToken(t["token"], t["mean_activation"], t["count"]) for t in row["top_tokens"]]
            for row in rows
        }

    def _permit(self, splits: Sequence[str]) -> None:
        for split in splits:
            if split not in self.stage.splits:
                raise PermissionError(f"stage {self.stage.name!r} may not read the split {split!r}")


def module_widths(tables: Tables) -> dict[str, int]:
    """Units of each recorded module, in the order of the table."""
    modules = tables.read(UNITS, columns=["module"])["module"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in modules}
