"""What a stage's `process` is given: the run file, the finished tables, and the evidence it may see."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.config import RunConfig
from pipeline.evidence import BANDS, Activations, Detail, Evidence, Exemplar, Pair, TopToken
from pipeline.schemas import CORPUS, DETAILS, EXEMPLARS, NEGATIVES, UNIT_TOKENS, UNITS, TableSchema
from pipeline.stage import Stage
from pipeline.tables import Tables

T = TypeVar("T")
MOST_TEXTS = 65_536
"""Sequences whose tokens are kept in memory; about 1 KB each."""


class Context:
    """The inputs of one stage. No stage can read a split of the exemplars that is not its own.

    Reading may be done in threads; `once` belongs to the thread of the stage.
    """

    def __init__(self, config: RunConfig, stage: Stage, worker: str = "0-of-1") -> None:
        """worker: names this process among those that share the run's work."""
        self.config = config
        self.stage = stage
        self.worker = worker
        self.tables = Tables(config.root)
        self._made: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self._texts: OrderedDict[int, list[str]] = OrderedDict()
        self._texts_in_use = threading.Lock()

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

    def tokens(self, seq_ids: Sequence[int]) -> dict[int, list[str]]:
        """Token texts of some sequences of the corpus."""
        wanted = set(seq_ids)
        with self._texts_in_use:
            missing = wanted - self._texts.keys()
            if missing:
                rows = self.tables.read(CORPUS, ds.field("seq_id").isin(sorted(missing)), ["seq_id", "tokens"])
                for seq_id, tokens in zip(rows["seq_id"].to_pylist(), rows["tokens"].to_pylist(), strict=True):
                    self._texts[seq_id] = list(map(sys.intern, tokens))
            found = {seq_id: self._texts[seq_id] for seq_id in wanted if seq_id in self._texts}
            while len(self._texts) > MOST_TEXTS:
                self._texts.popitem(last=False)
        return found

    def exemplars(
        self,
        module: str,
        indices: Sequence[int],
        splits: Sequence[str],
        polarity: str = "+",
        of: TableSchema = EXEMPLARS,
    ) -> dict[int, list[Exemplar]]:
        """The exemplars of some units, by band in the order of BANDS and then by rank.

        Their activations are in the polarity: those of '-' are negated.

        Args:
            of: EXEMPLARS, or NEGATIVES for their hard negatives.

        Raises:
            PermissionError: the stage does not own one of the splits.
        """
        self._permit(splits)
        where = self.tables.is_unit(module, indices, polarity) & ds.field("split").isin(list(splits))
        names = ("index", "band", "split", "rank", "seq_id")
        table = self.tables.read(of, where, [*names, "activations"])
        rows = list(zip(*(table[name].to_pylist() for name in names), range(table.num_rows), strict=True))
        rows.sort(key=lambda row: (BANDS.index(row[1]), splits.index(row[2]), row[3]))
        texts = self.tokens(table["seq_id"].to_pylist())
        activations = _rows_of_floats(table["activations"], self.config.record.skip_positions, polarity)
        found: dict[int, list[Exemplar]] = {index: [] for index in indices}
        for index, band, split, _, seq_id, number in rows:
            found[index].append(Exemplar(seq_id, band, texts[seq_id], activations[number], split))
        return found

    def sequences(
        self, module: str, indices: Sequence[int], splits: Sequence[str], polarity: str = "+"
    ) -> dict[int, list[tuple[int, str]]]:
        """(seq_id, split) of the exemplars of some units, without their activations; each once, in seq_id order."""
        self._permit(splits)
        where = self.tables.is_unit(module, indices, polarity) & ds.field("split").isin(list(splits))
        rows = self.tables.read(EXEMPLARS, where, ["index", "seq_id", "split"]).to_pylist()
        found: dict[int, set[tuple[int, str]]] = {index: set() for index in indices}
        for row in rows:
            found[row["index"]].add((row["seq_id"], row["split"]))
        return {index: sorted(pairs) for index, pairs in found.items()}

    def evidence(self, module: str, indices: Sequence[int], polarity: str = "+") -> list[Evidence]:
        """What an explainer may see of some units: whole texts, or explain.context tokens for those that show texts."""
        explain = self.config.explain
        exemplars = self.exemplars(module, indices, ["explain"], polarity)
        tokens = self.top_tokens(module, indices, polarity)
        hard = self.exemplars(module, indices, ["explain"], polarity, NEGATIVES) if explain.negatives == "hard" else {}
        details = self.details(module, indices, polarity)
        listed: dict[int, tuple[list[str], list[str]]] = {index: ([], []) for index in indices}
        if explain.output_tokens:
            listed = self.output_tokens(module, indices, polarity)
        context = None if explain.explainer == "statistics" else explain.context
        return [
            Evidence(
                module,
                index,
                polarity,
                exemplars[index],
                tokens[index],
                hard.get(index, []),
                details[index],
                *listed[index],
            ).around(context)
            for index in indices
        ]

    def top_tokens(self, module: str, indices: Sequence[int], polarity: str = "+") -> dict[int, list[TopToken]]:
        """The tokens with the highest mean activation, in the polarity, over the `explain` sequences."""
        name, sign = ("top_tokens", 1.0) if polarity == "+" else ("bottom_tokens", -1.0)
        rows = self.tables.read(UNITS, self.tables.is_unit(module, indices), ["index", name])
        lists = rows[name].combine_chunks()
        tokens, means, counts = (
            lists.flatten().field(part).to_pylist() for part in ("token", "mean_activation", "count")
        )
        entries = iter([TopToken(token, sign * mean, n) for token, mean, n in zip(tokens, means, counts, strict=True)])
        lengths = lists.value_lengths().to_pylist()
        return {
            index: list(islice(entries, length))
            for index, length in zip(rows["index"].to_pylist(), lengths, strict=True)
        }

    def details(self, module: str, indices: Sequence[int], polarity: str) -> dict[int, dict[int, Detail]]:
        """By unit and seq_id, what else is known of the `top` exemplars of the `explain` split; empty where nothing is.

        Raises:
            PermissionError: the stage does not own that split.
        """
        self._permit(["explain"])
        where = self.tables.is_unit(module, indices) & (ds.field("polarity") == polarity)
        found: dict[int, dict[int, Detail]] = {index: {} for index in indices}
        for row in self.tables.read(DETAILS, where).to_pylist():
            values, pairs = row["attribution"], row["pairs"]
            found[row["index"]][row["seq_id"]] = Detail(
                None if values is None else np.array(values, np.float32),
                None if pairs is None else [Pair(pair["from"], pair["to"], pair["value"]) for pair in pairs],
            )
        return found

    def output_tokens(
        self, module: str, indices: Sequence[int], polarity: str
    ) -> dict[int, tuple[list[str], list[str]]]:
        """The tokens that units make more likely and less likely in a polarity, by their weights; empty where none are known.

        A unit that is very negative does the opposite of what it does when it is large.
        """
        found: dict[int, tuple[list[str], list[str]]] = {index: ([], []) for index in indices}
        for row in self.tables.read(UNIT_TOKENS, self.tables.is_unit(module, indices)).to_pylist():
            promoted, suppressed = (
                [entry["token"] for entry in row[name] or ()] for name in ("promoted", "suppressed")
            )
            found[row["index"]] = (promoted, suppressed) if polarity == "+" else (suppressed, promoted)
        return found

    def _permit(self, splits: Sequence[str]) -> None:
        for split in splits:
            if split not in self.stage.splits:
                raise PermissionError(f"stage {self.stage.name!r} may not read the split {split!r}")


def _rows_of_floats(column: pa.ChunkedArray, skip: int, polarity: str) -> list[Activations]:
    """Each row's floats in the polarity, NaN at the first `skip` positions and wherever they are not finite."""
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    if polarity == "-":
        values = -values
    ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist()
    rows = [values[start:end] for start, end in pairwise([0, *ends])]
    for row in rows:
        row[:skip] = np.nan
    return rows


def module_widths(tables: Tables) -> dict[str, int]:
    """Units of each recorded module, in the order of the table."""
    modules = tables.read(UNITS, columns=["module"])["module"].value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in modules}
