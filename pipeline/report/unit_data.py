"""All that is known of the explained units, in files of a few units each, and which sequences they show."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.data_scripts import columns_of, numbers, packed, write_script
from pipeline.report.unit_list import UnitList
from pipeline.results.run_folder import RunFolder
from pipeline.schemas import EXEMPLARS, TableSchema
from pipeline.storage.tables import Tables

FILES_AT_ONCE = 32
"""Files of one module whose rows are read together."""
FEW = 10
"""Exemplars of each kind that are shown of a polarity that nobody explained."""
STRONGEST = 20
"""Sequences by which units are found that are strong on the same ones."""
BINS = 50
"""Bins of a histogram on the pages, about."""
LEVELS = 127
"""Of a true activation, from 0 to the sequence's largest; so many below 0, and MISSING."""
MISSING = -128
STEPS = 25
"""Of a simulated activation, for each step of its scale from 0 to 10; UNKNOWN for none."""
UNKNOWN = 255
LEFT_OUT = {"corpus", "judgements", "judged_texts", "explanation_embeddings", "token_means"}
"""Tables that no page of a unit shows row by row."""
CALIBRATED = ("exemplars", "simulations")
"""The tables that the calibration is taken over."""
Json = dict[str, Any]


class UnitData:
    """Writes the files of units and remembers what they show."""

    def __init__(self, run: RunFolder, units: UnitList, elsewhere: pa.Table) -> None:
        """elsewhere: what other runs say of the units."""
        self._elsewhere, self._elsewhere_of = elsewhere, ("", elsewhere.slice(0, 0))
        self._units, self._tables = units, Tables(run.root)
        self._schemas = {name: _schema(run, name) for name in run.tables if name not in LEFT_OUT}
        self._schemas = {name: table for name, table in self._schemas.items() if "index" in table.schema.names}
        listed = units.rows[["module", "index", "polarity", "explainer", "candidate"]]
        self._listed = {str(module): rows for module, rows in listed.groupby("module", sort=False)}
        self.count = len(units.rows[["module", "index"]].drop_duplicates())
        """Units of the list."""
        self.sequences: set[int] = set()
        """Of the corpus, those that some unit shows."""
        self.strongest = np.full((len(units.rows), STRONGEST), -1, np.int32)
        """For each row of the list, the sequences that the unit is strongest on, of the split `explain`; -1 for none."""
        self.calibration = np.zeros((11, 2))
        """By simulated activation, rounded: tokens of the split `report`, and the sum of their true ones on the same scale."""

    def write(self, folder: Path) -> Iterator[int]:
        """FOLDER/units/NUMBER.js for each file of the list; yields the number of units as they are written."""
        files = list(enumerate(self._units.files()))
        for module, found in groupby(files, key=lambda file: file[1][0]):
            own = list(found)
            for start in range(0, len(own), FILES_AT_ONCE):
                yield from self._write_some(folder, module, own[start : start + FILES_AT_ONCE])

    def _write_some(
        self, folder: Path, module: str, files: Sequence[tuple[int, tuple[str, list[int]]]]
    ) -> Iterator[int]:
        read = self.rows(module, [index for _, (_, indices) in files for index in indices])
        self._keep_strongest(module, read)
        self._calibrate(read)
        for number, (_, indices) in files:
            rows = {name: _of_units(table, indices) for name, table in read.items()}
            write_script(folder, f"units/{number}", self._json(module, indices, rows))
            yield len(indices)

    def one(self, module: str, index: int) -> Json:
        """What a file has of a unit, for it alone."""
        found = self.rows(module, [index])
        return self._json(module, [index], {name: _of_units(table, [index]) for name, table in found.items()})

    def calibrate(self, most: int) -> None:
        """Take the calibration over the units of `most` files of the list at most, spread evenly."""
        files = self._units.files()
        for module, indices in files[:: max(1, -(-len(files) // most))]:
            self._calibrate(self.rows(module, indices, CALIBRATED))

    def rows(self, module: str, indices: Sequence[int], names: Collection[str] | None = None) -> dict[str, pa.Table]:
        """The rows that pages show of some units of a module, by table and by index; of all tables unless some are named."""
        wanted = [name for name in self._schemas if names is None or name in names]
        found = {name: _by_index(self._rows(name, module, indices)) for name in wanted}
        if names is None:
            if self._elsewhere_of[0] != module:  # pages are made of one module after the other
                of_module = self._elsewhere.filter(pc.equal(self._elsewhere["module"], module))
                self._elsewhere_of = module, _by_index(of_module)
            found["elsewhere"] = self._elsewhere_of[1]
        return found

    def _rows(self, name: str, module: str, wanted: Sequence[int]) -> pa.Table:
        """The rows of a table that pages show, of some units of a module."""
        index = pc.field("index")
        where = (
            (pc.field("module") == module) & (index >= min(wanted)) & (index <= max(wanted)) & index.isin(list(wanted))
        )
        if name == "negatives":
            where &= pc.field("rank") < FEW
        if name == "simulations":
            where &= (pc.field("control") == "") & (pc.field("split") == "report")
        if name == "exemplars":
            where &= (pc.field("split") != "select") & ~(
                (pc.field("split") == "explain") & (pc.field("band") == "random")
            )
        rows = self._tables.read(self._schemas[name], where)
        if name == "simulations":
            return rows.filter(self._is_published(module, rows, ["index", "polarity", "explainer", "candidate"]))
        if name == "exemplars":
            few = pc.and_(pc.equal(rows["band"], "top"), pc.less(rows["rank"], FEW))
            return rows.filter(pc.or_(few, self._is_published(module, rows, ["index", "polarity"])))
        return rows

    def _is_published(self, module: str, rows: pa.Table, keys: list[str]) -> pa.Array:
        """Which rows belong to units and explanations of the list."""
        listed = self._listed[module][keys].drop_duplicates()
        found = rows.select(keys).to_pandas().merge(listed, how="left", on=keys, indicator=True)
        return pa.array(found["_merge"] == "both")

    def _json(self, module: str, indices: list[int], rows: dict[str, pa.Table]) -> Json:
        found: Json = {"module": module, "indices": indices, "tables": {}}
        for name, table in rows.items():
            if name == "units":
                found["tables"][name] = _statistics(table)
            elif name == "simulations":
                found["tables"][name] = self._simulated(table)
            elif "activations" in table.column_names:
                found["tables"][name] = _recorded(table)
            else:
                found["tables"][name] = columns_of(table.drop(["module"]))
            if "seq_id" in table.column_names:
                self.sequences.update(table["seq_id"].to_pylist())
        return found

    def _simulated(self, table: pa.Table) -> Json:
        values, lengths = _flat(table["expected"])
        levels = np.where(np.isfinite(values), np.clip(np.rint(values * STEPS), 0, 10 * STEPS), UNKNOWN)
        kept = ["index", "polarity", "explainer", "candidate", "simulator", "seq_id", "status", "error"]
        return columns_of(table.select(kept)) | {"lengths": lengths.tolist(), "values": packed(levels.astype(np.uint8))}

    def _keep_strongest(self, module: str, read: dict[str, pa.Table]) -> None:
        exemplars = read.get("exemplars", EXEMPLARS.schema.empty_table())
        is_kept = pc.and_(pc.equal(exemplars["band"], "top"), pc.equal(exemplars["split"], "explain"))
        kept = exemplars.filter(pc.and_(is_kept, pc.less(exemplars["rank"], STRONGEST)))
        listed = self._listed[module][["index", "polarity"]]
        found = kept.select(["index", "polarity", "rank", "seq_id"]).to_pandas()
        found = listed.assign(row=listed.index).merge(found, on=["index", "polarity"])
        self.strongest[found["row"], found["rank"]] = found["seq_id"]

    def _calibrate(self, read: dict[str, pa.Table]) -> None:
        """Add tokens to the calibration; the true scale of a unit goes from 0 to its largest activation on `report`."""
        if not read.keys() >= set(CALIBRATED):
            return
        exemplars, simulations = (read[name] for name in CALIBRATED)
        keys = ["index", "polarity", "seq_id"]
        truths = exemplars.filter(pc.equal(exemplars["split"], "report"))
        rows = truths.select(keys).to_pandas().assign(true=np.arange(len(truths))).drop_duplicates(keys)
        pairs = simulations.select(keys).to_pandas().assign(guess=np.arange(len(simulations))).merge(rows, on=keys)
        true, lengths = _flat(truths.take(pairs["true"].to_numpy())["activations"])
        guess, others = _flat(simulations.take(pairs["guess"].to_numpy())["expected"])
        if not len(pairs) or not np.array_equal(lengths, others):
            return
        true = true * np.repeat(np.where(pairs["polarity"] == "-", -1, 1), lengths)
        unit = np.repeat(pairs.groupby(["index", "polarity"]).ngroup().to_numpy(), lengths)
        known = np.isfinite(true) & np.isfinite(guess)
        largest = np.zeros(unit.max() + 1)
        np.maximum.at(largest, unit[known], true[known])
        known &= largest[unit] > 0
        bins = np.clip(np.rint(guess[known]), 0, 10).astype(int)
        self.calibration[:, 0] += np.bincount(bins, minlength=11)
        self.calibration[:, 1] += np.bincount(
            bins, 10 * np.maximum(true[known], 0) / largest[unit[known]], minlength=11
        )


def _schema(run: RunFolder, name: str) -> TableSchema:
    return TableSchema(name, 0, run.dataset(name).schema.remove_metadata(), units_per_group=64)


def _by_index(table: pa.Table) -> pa.Table:
    order = np.argsort(table["index"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).combine_chunks()


def _of_units(table: pa.Table, indices: Sequence[int]) -> pa.Table:
    """The rows of some units, which follow one another, in a table that is sorted by index."""
    start, stop = np.searchsorted(table["index"].to_numpy(), [indices[0], indices[-1] + 1])
    return table.slice(start, stop - start)


def _flat(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """All values of rows of floats, NaN for null, and the length of each row."""
    lists = pa.chunked_array(column.chunks, column.type).combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return values, np.asarray(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), np.int64)


def _recorded(table: pa.Table) -> Json:
    """Exemplars: activations are packed in LEVELS of the largest of their row, which is in the column `scale`."""
    values, lengths = _flat(table["activations"])
    scale = np.zeros(len(lengths))
    np.maximum.at(scale, np.repeat(np.arange(len(lengths)), lengths), np.where(np.isfinite(values), np.abs(values), 0))
    row_scale = np.repeat(np.where(scale > 0, scale, 1), lengths)
    levels = np.where(np.isfinite(values), np.rint(values / row_scale * LEVELS), MISSING).astype(np.int8)
    shown = columns_of(table.drop(["module", "activations"]))
    return shown | {
        "scale": numbers(scale),
        "lengths": lengths.tolist(),
        "values": packed(levels),
    }


def _statistics(table: pa.Table) -> Json:
    """Rows of `units`, their histograms with fewer bins."""
    shown = columns_of(table.drop(["module", "histogram_edges", "histogram_counts"]))
    pairs = zip(table["histogram_edges"].to_pylist(), table["histogram_counts"].to_pylist(), strict=True)
    shown["histogram"] = [
        None if edges is None else _fewer_bins(np.array(edges), np.array(counts)) for edges, counts in pairs
    ]
    return shown


def _fewer_bins(edges: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Json:
    """The histogram with neighbouring bins put together until each is as wide as the range over BINS; empty ends are cut off."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return {"edges": [], "counts": []}
    edges, counts = edges[filled[0] : filled[-1] + 2], counts[filled[0] : filled[-1] + 1]
    kept, width = [0], (edges[-1] - edges[0]) / BINS
    for place in range(1, len(counts)):
        if edges[place] - edges[kept[-1]] >= width:
            kept.append(place)
    return {
        "edges": numbers(np.append(edges[kept], edges[-1])),
        "counts": np.add.reduceat(counts, kept).tolist(),
    }
