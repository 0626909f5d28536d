"""What was recorded about units, read from the tables as explainers, simulators and scorers may see it.

Shapes: T tokens of a sequence.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.execution.stage import Context
from pipeline.schemas import CORPUS, DETAILS, EXEMPLARS, NEGATIVES, UNIT_TOKENS, UNITS, TableSchema
from stages.settings import Explain, Record

SPLITS = ("explain", "select", "report")
BANDS = ("top", "quantile", "random", "similar", "neighbour", "fires", "quiet", "weak")
"""Why a sequence was kept; `similar` and `neighbour` are hard negatives, see stages/record/negatives.py, and the last three are texts for
judges, see stages/judge/text_choice.py."""
MOST_TEXTS = 65_536
"""Sequences whose tokens are kept in memory; about 1 KB each."""

Activations = npt.NDArray[np.float32]


SPLIT_OF_RESIDUE = ("explain", "select", "explain", "report")
"""The split of a sequence by seq_id % 4."""


def split_of(seq_id: int) -> str:
    """The split that a sequence belongs to, for every unit alike.

    The corpus numbers its sequences so that those of one document are in one split (see `document_splits`): half of them in `explain`,
    a quarter each in `select` and `report`. Because the split belongs to the sequence, corpus-wide statistics that are taken
    over `explain` alone cannot leak what a score is computed on.
    """
    return SPLIT_OF_RESIDUE[seq_id % len(SPLIT_OF_RESIDUE)]


@dataclass(frozen=True)
class Exemplar:
    """A kept sequence of one unit."""

    seq_id: int
    band: str
    tokens: list[str]
    """T token texts; joined, they are the text. None where they were not asked for."""
    activations: Activations
    """(T,) activations in the polarity of the unit; NaN at the positions left out of the record."""
    split: str = "explain"
    start: int = 0
    """Position in the sequence of the first of its tokens; above 0 where the beginning is left out."""

    @property
    def peak(self) -> int:
        """Position of the largest activation, the first one among equals."""
        return int(np.nanargmax(self.activations))

    @property
    def highest(self) -> float:
        """The largest activation; NaN where none is finite."""
        return float(np.fmax.reduce(self.activations))

    def around(self, context: int | None) -> "Exemplar":
        """The `context` tokens around the peak; all of them where it is None.

        The peak stands in the middle, with one token more before it than after it where the number is even. Near an end
        the part is shifted, so that it has `context` tokens. Without a finite activation the part is the beginning.
        """
        if context is None or context >= len(self.tokens):
            return self
        peak = self.peak if np.isfinite(self.activations).any() else 0
        first = min(max(peak - context // 2, 0), len(self.tokens) - context)
        part = slice(first, first + context)
        return replace(self, tokens=self.tokens[part], activations=self.activations[part], start=self.start + first)


@dataclass(frozen=True)
class TopToken:
    """A token of the unit's table of tokens by mean activation, over the `explain` sequences only."""

    token: str
    mean_activation: float
    count: int


class Pair(NamedTuple):
    """Two positions between which an attention head moves something."""

    source: int
    target: int
    value: float
    """The norm of what is moved."""


@dataclass(frozen=True)
class Detail:
    """What is known of an exemplar beyond its activations. Positions count from the exemplar's first token."""

    attribution: Activations | None = None
    """(T,) how much each token matters to the activation at the peak, negative where it works against it; NaN where that
    is not known, None where it was not worked out."""
    pairs: list[Pair] | None = None
    """The strongest pairs of an attention head, the strongest first."""

    def within(self, start: int, stop: int) -> "Detail":
        """The part about the tokens start..stop alone; a pair that leads out of it is left out."""
        inside = range(start, stop)
        pairs = [pair for pair in self.pairs or () if pair.source in inside and pair.target in inside]
        return Detail(
            None if self.attribution is None else self.attribution[start:stop],
            None if self.pairs is None else [Pair(source - start, to - start, value) for source, to, value in pairs],
        )


@dataclass(frozen=True)
class Evidence:
    """All that an explainer may know of a unit; every part of it comes from the `explain` split."""

    module: str
    index: int
    polarity: str
    exemplars: list[Exemplar]
    """`top` by falling maximum, then `quantile`, then `random`."""
    top_tokens: list[TopToken]
    """By falling mean activation."""
    negatives: list[Exemplar] = field(default_factory=list)
    """Hard negatives, `similar` first, then `neighbour`, the hardest first; none unless they were asked for."""
    details: Mapping[int, Detail] = field(default_factory=dict)
    """By seq_id, for exemplars of which there are any."""
    promoted: list[str] = field(default_factory=list)
    """Tokens that the unit makes more likely where it is active in this polarity, by its weights, the strongest first; none
    unless they were asked for."""

    def band(self, name: str) -> list[Exemplar]:
        return [exemplar for exemplar in self.exemplars if exemplar.band == name]

    def around(self, context: int | None) -> "Evidence":
        """Its exemplars and hard negatives, each cut to the tokens around its peak, and its details cut alike."""
        exemplars = [exemplar.around(context) for exemplar in self.exemplars]
        details = {}
        for whole, part in zip(self.exemplars, exemplars, strict=True):
            if known := self.details.get(whole.seq_id):
                details[whole.seq_id] = known.within(first := part.start - whole.start, first + len(part.tokens))
        negatives = [exemplar.around(context) for exemplar in self.negatives]
        return replace(self, exemplars=exemplars, negatives=negatives, details=details)


class RecordedUnits:
    """The evidence about the units of a run. No stage can read a split of the exemplars that is not its own.

    Its methods may be called in threads.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._config, self._tables = context, context.config, context.tables
        self._texts: dict[int, list[str]] = {}

    @classmethod
    def of(cls, context: Context) -> "RecordedUnits":
        """Those of a stage, made once."""
        return context.once("recorded units", lambda _: cls(context))

    def tokens(self, seq_ids: Sequence[int]) -> dict[int, list[str]]:
        """Token texts of some sequences of the corpus."""
        wanted = set(seq_ids)
        texts = self._texts if len(self._texts) < MOST_TEXTS else {}
        if missing := wanted - texts.keys():
            rows = self._tables.numbered(CORPUS, missing, ["seq_id", "tokens"])
            read = [list(map(sys.intern, tokens)) for tokens in rows["tokens"].to_pylist()]
            texts = texts | dict(zip(rows["seq_id"].to_pylist(), read, strict=True))
            self._texts = texts  # a new one, as another thread may be reading the old one
        return {seq_id: texts[seq_id] for seq_id in wanted if seq_id in texts}

    def exemplars(
        self,
        module: str,
        indices: Sequence[int],
        splits: Sequence[str],
        polarity: str = "+",
        of: TableSchema = EXEMPLARS,
        *,
        texts: bool = True,
    ) -> dict[int, list[Exemplar]]:
        """The exemplars of some units, by band in the order of BANDS and then by rank.

        Their activations are in the polarity: those of '-' are negated.

        Args:
            of: EXEMPLARS, or NEGATIVES for their hard negatives.
            texts: whether they have their tokens, which are read from all over the corpus.

        Raises:
            PermissionError: the stage does not own one of the splits.
        """
        names = ["index", "band", "split", "rank", "seq_id"]
        table = self._rows(of, (module, indices, polarity), splits, [*names, "activations"])
        rows = list(zip(*(table[name].to_pylist() for name in names), range(table.num_rows), strict=True))
        rows.sort(key=lambda row: (BANDS.index(row[1]), splits.index(row[2]), row[3]))
        tokens = self.tokens(table["seq_id"].to_pylist()) if texts else {}
        activations = _rows_of_floats(table["activations"], self._config[Record].skip_positions, polarity)
        found: dict[int, list[Exemplar]] = {index: [] for index in indices}
        for index, band, split, _, seq_id, number in rows:
            shown = tokens[seq_id] if texts else []
            found[index].append(Exemplar(seq_id, band, shown, activations[number], split))
        return found

    def sequences(
        self, module: str, indices: Sequence[int], splits: Sequence[str], polarity: str = "+"
    ) -> dict[int, list[tuple[int, str]]]:
        """(seq_id, split) of the exemplars of some units, without their activations; each once, in seq_id order."""
        names = ["index", "seq_id", "split"]
        table = self._rows(EXEMPLARS, (module, indices, polarity), splits, names)
        found: dict[int, list[tuple[int, str]]] = {index: [] for index in indices}
        for index, *pair in sorted(set(zip(*(table[name].to_pylist() for name in names), strict=True))):
            found[index].append((pair[0], pair[1]))
        return found

    def _rows(
        self, table: TableSchema, unit: tuple[str, Sequence[int], str], splits: Sequence[str], columns: list[str]
    ) -> pa.Table:
        self._context.permit(splits)
        where = self._tables.is_unit(*unit) & pc.field("split").isin(list(splits))
        return self._tables.read(table, where, columns)

    def evidence(self, module: str, indices: Sequence[int], polarity: str = "+") -> list[Evidence]:
        """What an explainer may see of some units."""
        explain, unit = self._config[Explain], (module, indices, polarity)
        exemplars = self.exemplars(module, indices, ["explain"], polarity)
        hard = self.exemplars(module, indices, ["explain"], polarity, NEGATIVES) if explain.negatives == "hard" else {}
        tokens, details = self.top_tokens(*unit), self.details(*unit)
        promoted = self.promoted_tokens(*unit) if explain.output_tokens else {}

        def of(index: int) -> Evidence:
            negatives, likely = hard.get(index, []), promoted.get(index, [])
            return Evidence(module, index, polarity, exemplars[index], tokens[index], negatives, details[index], likely)

        return [of(index) for index in indices]

    def top_tokens(self, module: str, indices: Sequence[int], polarity: str = "+") -> dict[int, list[TopToken]]:
        """The tokens with the highest mean activation, in the polarity, over the `explain` sequences."""
        name, sign = ("top_tokens", 1.0) if polarity == "+" else ("bottom_tokens", -1.0)
        rows = self._tables.read(UNITS, self._tables.is_unit(module, indices), ["index", name]).to_pylist()

        def listed(row: dict[str, Any]) -> list[TopToken]:
            return [TopToken(one["token"], sign * one["mean_activation"], one["count"]) for one in row[name] or ()]

        return {row["index"]: listed(row) for row in rows}

    def details(self, module: str, indices: Sequence[int], polarity: str) -> dict[int, dict[int, Detail]]:
        """By unit and seq_id, what else is known of the `top` exemplars of the `explain` split; empty where nothing is.

        Raises:
            PermissionError: the stage does not own that split.
        """
        self._context.permit(["explain"])
        found: dict[int, dict[int, Detail]] = {index: {} for index in indices}
        for row in self._tables.read(DETAILS, self._tables.is_unit(module, indices, polarity)).to_pylist():
            values, pairs = row["attribution"], row["pairs"]
            attribution = None if values is None else np.array(values, np.float32)
            listed = None if pairs is None else [Pair(pair["from"], pair["to"], pair["value"]) for pair in pairs]
            found[row["index"]][row["seq_id"]] = Detail(attribution, listed)
        return found

    def promoted_tokens(self, module: str, indices: Sequence[int], polarity: str) -> dict[int, list[str]]:
        """The tokens that units make more likely in a polarity, by their weights; empty where none are known.

        A unit that is very negative makes those tokens likely that it suppresses when it is large.
        """
        name = "promoted" if polarity == "+" else "suppressed"
        rows = self._tables.read(UNIT_TOKENS, self._tables.is_unit(module, indices), ["index", name]).to_pylist()
        known = {row["index"]: [entry["token"] for entry in row[name] or ()] for row in rows}
        return {index: known.get(index, []) for index in indices}


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
