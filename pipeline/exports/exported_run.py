"""A run as exports read it: its units a few at a time, so that memory does not grow with their number.

Other formats know large activations only. The polarity '-' of a unit is a unit of its own for them, whose activations have
the other sign.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.execution.progress import say
from pipeline.exports.exported_unit import (
    BANDS,
    ExportedExemplar,
    ExportedExplanation,
    ExportedUnit,
    Row,
    mirrored,
)
from pipeline.results.run_folder import RunFolder
from pipeline.schemas import CORPUS, EXEMPLARS, EXPLANATIONS, NULL_UNITS, UNIT_TOKENS, UNITS
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import MODULE

if TYPE_CHECKING:
    import pyarrow.dataset as ds

UNITS_AT_ONCE = 64
"""As many as a row group of the tables holds."""


class ExportedRun:
    """The units of a run that are exported: the explained ones, or all that are recorded."""

    def __init__(
        self,
        run: RunFolder,
        score_tables: Sequence[str],
        modules: str = "*",
        *,
        every: bool = False,
        polarity: str = "+",
    ) -> None:
        """Which units to export.

        Args:
            score_tables: tables with explanations and their scores, the most important one first.
            modules: a pattern for the names of modules, such as "layers.*.mlp".
            every: recorded units too that have no explanation.
            polarity: '+' or '-'; of '-' all activations have their sign turned.
        """
        self.run, self.polarity = run, polarity
        self.score_tables = [name for name in score_tables if name in run.tables]
        self._modules, self._every = modules, every
        self._datasets: dict[str, ds.Dataset] = {}

    @cached_property
    def negative(self) -> "ExportedRun | None":
        """The same run by the polarity '-', as far as that is explained; None where it is not."""
        found = ExportedRun(self.run, self.score_tables, self._modules, polarity="-")
        return found if self.polarity == "+" and found._kept else None

    @property
    def parts(self) -> list["ExportedRun"]:
        """The run by each polarity that has units to export, for formats that have a place for both."""
        found = [self] if self._kept else []
        return [*found, *([self.negative] if self.negative else [])] or [self]

    @cached_property
    def indices(self) -> dict[str, list[int]]:
        """The units to export, rising, by module, the layers in their order. Raises UserError: there are none."""
        if self._kept:
            return self._kept
        have = "there is no explained unit; --all takes all that are recorded"
        if self._found:
            have = f"there are units of {', '.join(self._found)}"
        elif self.negative:
            have = "of its units the polarity '-' alone is explained, for which this format has no place"
        raise UserError(f"{self.run.root} has nothing to export of modules named {self._modules!r}: {have}")

    @cached_property
    def _kept(self) -> dict[str, list[int]]:
        return {name: found for name, found in self._found.items() if fnmatch.fnmatchcase(name, self._modules)}

    @cached_property
    def _found(self) -> dict[str, list[int]]:
        """Units of all modules."""
        explained = (pc.field("polarity") == self.polarity) & pc.field("text").is_valid()
        sources = dict.fromkeys([*self.score_tables, EXPLANATIONS.name], explained)
        if self._every:
            sources[UNITS.name] = None
        found: dict[str, set[int]] = {}
        for name in (name for name in sources if name in self.run.tables):
            rows = self._dataset(name).to_table(columns=["module", "index"], filter=sources[name])
            for row in rows.group_by(["module", "index"]).aggregate([]).to_pylist():
                found.setdefault(row["module"], set()).add(row["index"])
        return {name: sorted(found[name]) for name in sorted(found, key=_in_order) if name != NULL_UNITS}

    def in_layers(self) -> dict[str, int]:
        """The layer of each module, for formats that know a unit by its layer; says which modules have no place there.

        Raises:
            UserError: no module is in a layer.
        """
        layers = {module: layer for module in self.indices if (layer := layer_of(module)) is not None}
        others = ", ".join(module for module in self.indices if module not in layers)
        if not layers:
            raise UserError(f"this format knows units by their layer, and {others} are in none; use another one")
        if others:
            say(f"left out, as this format knows units by their layer: {others}")
        return layers

    def by_layer(self) -> dict[int, str]:
        """The module of each layer, for formats that know a unit by its layer and its number alone.

        Raises:
            UserError: two modules are of one layer, or none is in a layer.
        """
        found: dict[int, str] = {}
        for module, layer in self.in_layers().items():
            if layer in found:
                raise UserError(
                    f"{found[layer]} and {module} are of one layer, and this format has one kind of unit for each layer; "
                    f"choose with --modules 'layers.*.{kind_of(module)}'"
                )
            found[layer] = module
        return found

    def blocks(self, module: str) -> Iterator[list[int]]:
        """The units of a module, some at a time; shows how far they are."""
        indices = self.indices[module]
        with tqdm(total=len(indices), desc=module, unit="unit", leave=False, disable=None) as bar:
            for start in range(0, len(indices), UNITS_AT_ONCE):
                block = indices[start : start + UNITS_AT_ONCE]
                yield block
                bar.update(len(block))

    def units(self, module: str, indices: Sequence[int]) -> list[ExportedUnit]:
        """All that is known of some units of a module."""
        statistics = {row["index"]: row for row in self.rows(UNITS.name, module, indices)}
        weights = {row["index"]: row for row in self.rows(UNIT_TOKENS.name, module, indices)}
        if self.polarity == "-":
            turned = {index: mirrored(statistics.get(index, {}), weights.get(index, {})) for index in indices}
            statistics, weights = ({index: pair[place] for index, pair in turned.items()} for place in (0, 1))
        exemplars, explanations = self.exemplars(EXEMPLARS.name, module, indices), self._explanations(module, indices)
        return [
            ExportedUnit(
                index,
                statistics.get(index, {}),
                weights.get(index, {}),
                exemplars.get(index, []),
                explanations.get(index, []),
            )
            for index in indices
        ]

    def rows(self, table: str, module: str, indices: Sequence[int], where: Any = None) -> list[Row]:
        """The rows of a table about some units, of one polarity where it has polarities; none where there is no such table."""
        if table not in self.run.tables:
            return []
        source = self._dataset(table)
        polarity = self.polarity if "polarity" in source.schema.names else None
        wanted = Tables(self.run.root).is_unit(module, indices, polarity)
        found: list[Row] = source.to_table(filter=wanted if where is None else wanted & where).to_pylist()
        return found

    def exemplars(self, table: str, module: str, indices: Sequence[int]) -> dict[int, list[ExportedExemplar]]:
        """The sequences that a table such as `exemplars` holds for some units."""
        rows = self.rows(table, module, indices)
        rows.sort(key=lambda row: (BANDS.index(row["band"]), row["rank"], row["split"]))
        texts = self.tokens(row["seq_id"] for row in rows)
        found: dict[int, list[ExportedExemplar]] = {}
        for row in rows:
            tokens = texts[row["seq_id"]]
            values = row["activations"]
            if self.polarity == "-":
                values = [None if value is None else -value for value in values]
            one = ExportedExemplar(row["seq_id"], row["band"], row["split"], tokens, values)
            found.setdefault(row["index"], []).append(one)
        return found

    def _explanations(self, module: str, indices: Sequence[int]) -> dict[int, list[ExportedExplanation]]:
        """The explanations with a score, by unit; of units that have none the explainer's favourite."""
        found: dict[int, list[ExportedExplanation]] = {}
        scored = (pc.field("status") == "ok") & pc.field("text").is_valid()
        for name in self.score_tables:
            columns = float_columns(self._dataset(name).schema)
            for row in self.rows(name, module, indices, scored):
                found.setdefault(row["index"], []).append(_explanation(row, columns))
        favourite = (pc.field("candidate") == 0) & pc.field("text").is_valid()
        for row in self.rows(EXPLANATIONS.name, module, indices, favourite):
            if row["index"] not in found:
                found[row["index"]] = [_explanation(row, [])]
        return {
            index: sorted(texts, key=lambda one: -next(iter(one.scores.values()), 0.0))
            for index, texts in found.items()
        }

    def columns(self, table: str) -> set[str]:
        """The names of a table's columns."""
        return set(self._dataset(table).schema.names)

    def tokens(self, seq_ids: Iterable[int]) -> dict[int, list[str]]:
        """Token texts of some sequences of the corpus."""
        wanted = np.unique(np.fromiter(seq_ids, np.int64))
        if not len(wanted):
            return {}
        known, texts = self._corpus
        places = np.searchsorted(known, wanted)
        return dict(zip(wanted.tolist(), texts.take(pa.array(places)).to_pylist(), strict=True))

    @cached_property
    def _corpus(self) -> tuple["np.ndarray[Any, np.dtype[np.int64]]", pa.ChunkedArray]:
        """The seq_ids of the corpus, rising, and the tokens of each; memory is bounded by corpus.max_sequences."""
        rows = self._dataset(CORPUS.name).to_table(columns=["seq_id", "tokens"]).sort_by("seq_id")
        return rows["seq_id"].to_numpy(), rows["tokens"]

    def setting(self, name: str) -> Any:
        """A setting that a table's footer tells of, such as `model`; None where none does."""
        for table in self.run.tables:
            inputs = self.run.provenance(table).get("inputs", {})
            if name in inputs.get("settings", {}):
                return inputs["settings"][name]
        return None

    def _dataset(self, table: str) -> "ds.Dataset":
        if table not in self._datasets:
            self._datasets[table] = self.run.dataset(table)
        return self._datasets[table]


@dataclass(frozen=True)
class Export:
    """A format."""

    summary: str
    """One line for people."""
    write: Callable[[ExportedRun, Path], None]
    """Fills an empty folder. Raises UserError: the run has nothing that the format can say."""
    has_negative: bool = False
    """Whether it has a place for the polarity '-' of a unit beside '+'."""


def float_columns(schema: pa.Schema) -> list[str]:
    """The columns of a score table that hold scores, the headline first."""
    return [field.name for field in schema if pa.types.is_floating(field.type)]


def layer_of(module: str) -> int | None:
    """The layer of a module; None outside of the layers."""
    match = MODULE.fullmatch(module)
    return int(match["layer"]) if match else None


def kind_of(module: str) -> str:
    """What stands behind the layer in the name of a module: mlp, sae:NAME."""
    return module.split(".", 2)[-1]


def _explanation(row: Row, columns: Sequence[str]) -> ExportedExplanation:
    keys = {name: row[name] for name in ("explainer", "candidate")}
    return ExportedExplanation(row["text"], keys, {name: row[name] for name in columns if row[name] is not None})


def _in_order(module: str) -> tuple[int, str]:
    layer = layer_of(module)
    return (-1 if layer is None else layer, module)
