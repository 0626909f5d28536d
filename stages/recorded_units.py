"""What was recorded about units, read from the tables as explainers, simulators and scorers may see it."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.execution.stage import Context
from pipeline.schemas import CORPUS, DETAILS, EXEMPLARS, NEGATIVES, UNIT_TOKENS, UNITS, TableSchema
from stages.evidence import BANDS, Activations, Detail, Evidence, Exemplar, Pair, TopToken
from stages.settings import Explain, Record

MOST_TEXTS = 65_536
"""Sequences whose tokens are kept in memory; about 1 KB each."""


class RecordedUnits:
    """The evidence about the units of a run. No stage can read a split of the exemplars that is not its own.

    Its methods may be called in threads.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._config, self._tables = context, context.config, context.tables
        self._texts: OrderedDict[int, list[str]] = OrderedDict()
        self._texts_in_use = threading.Lock()

    @classmethod
    def of(cls, context: Context) -> "RecordedUnits":
        """Those of a stage, made once."""
        return context.once("recorded units", lambda _: cls(context))

    def tokens(self, seq_ids: Sequence[int]) -> dict[int, list[str]]:
        """Token texts of some sequences of the corpus."""
        wanted = set(seq_ids)
        with self._texts_in_use:
            missing = wanted - self._texts.keys()
            if missing:
                rows = self._tables.read(CORPUS, ds.field("seq_id").isin(sorted(missing)), ["seq_id", "tokens"])
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
        self._context.permit(splits)
        where = self._tables.is_unit(module, indices, polarity) & ds.field("split").isin(list(splits))
        names = ("index", "band", "split", "rank", "seq_id")
        table = self._tables.read(of, where, [*names, "activations"])
        rows = list(zip(*(table[name].to_pylist() for name in names), range(table.num_rows), strict=True))
        rows.sort(key=lambda row: (BANDS.index(row[1]), splits.index(row[2]), row[3]))
        texts = self.tokens(table["seq_id"].to_pylist())
        activations = _rows_of_floats(table["activations"], self._config[Record].skip_positions, polarity)
        found: dict[int, list[Exemplar]] = {index: [] for index in indices}
        for index, band, split, _, seq_id, number in rows:
            found[index].append(Exemplar(seq_id, band, texts[seq_id], activations[number], split))
        return found

    def sequences(
        self, module: str, indices: Sequence[int], splits: Sequence[str], polarity: str = "+"
    ) -> dict[int, list[tuple[int, str]]]:
        """(seq_id, split) of the exemplars of some units, without their activations; each once, in seq_id order."""
        self._context.permit(splits)
        where = self._tables.is_unit(module, indices, polarity) & ds.field("split").isin(list(splits))
        rows = self._tables.read(EXEMPLARS, where, ["index", "seq_id", "split"]).to_pylist()
        pairs = sorted({(row["index"], row["seq_id"], row["split"]) for row in rows})
        return {index: [(seq_id, split) for of, seq_id, split in pairs if of == index] for index in indices}

    def evidence(self, module: str, indices: Sequence[int], polarity: str = "+") -> list[Evidence]:
        """What an explainer may see of some units."""
        explain = self._config[Explain]
        exemplars = self.exemplars(module, indices, ["explain"], polarity)
        tokens = self.top_tokens(module, indices, polarity)
        hard = self.exemplars(module, indices, ["explain"], polarity, NEGATIVES) if explain.negatives == "hard" else {}
        details = self.details(module, indices, polarity)
        listed = self.output_tokens(module, indices, polarity) if explain.output_tokens else {}
        return [
            Evidence(
                module,
                index,
                polarity,
                exemplars[index],
                tokens[index],
                hard.get(index, []),
                details[index],
                *listed.get(index, ([], [])),
            )
            for index in indices
        ]

    def top_tokens(self, module: str, indices: Sequence[int], polarity: str = "+") -> dict[int, list[TopToken]]:
        """The tokens with the highest mean activation, in the polarity, over the `explain` sequences."""
        name, sign = ("top_tokens", 1.0) if polarity == "+" else ("bottom_tokens", -1.0)
        rows = self._tables.read(UNITS, self._tables.is_unit(module, indices), ["index", name])
        return {
            row["index"]: [
                TopToken(one["token"], sign * one["mean_activation"], one["count"]) for one in row[name] or ()
            ]
            for row in rows.to_pylist()
        }

    def details(self, module: str, indices: Sequence[int], polarity: str) -> dict[int, dict[int, Detail]]:
        """By unit and seq_id, what else is known of the `top` exemplars of the `explain` split; empty where nothing is.

        Raises:
            PermissionError: the stage does not own that split.
        """
        self._context.permit(["explain"])
        where = self._tables.is_unit(module, indices) & (ds.field("polarity") == polarity)
        found: dict[int, dict[int, Detail]] = {index: {} for index in indices}
        for row in self._tables.read(DETAILS, where).to_pylist():
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
        for row in self._tables.read(UNIT_TOKENS, self._tables.is_unit(module, indices)).to_pylist():
            names = ("promoted", "suppressed") if polarity == "+" else ("suppressed", "promoted")
            more, less = ([entry["token"] for entry in row[name] or ()] for name in names)
            found[row["index"]] = (more, less)
        return found


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
