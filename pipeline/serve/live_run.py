"""A run's folder as a server shows it: made from the tables when it is asked for, anew once they have changed."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport, Unit
from pipeline.report.data_scripts import as_script
from pipeline.report.other_runs import in_other_runs
from pipeline.report.pages import run_facts
from pipeline.report.shown_corpus import corpus_file, neighbours
from pipeline.report.unit_data import UnitData
from pipeline.report.unit_list import NUMBERS, UnitList, list_units
from pipeline.results.run_folder import RunFolder, damage_named, open_run
from pipeline.schemas import EXEMPLARS, NULL_UNITS
from pipeline.serve.query_process import json_value
from pipeline.storage.by_hand import WrittenExplanation, read_by_hand, save_by_hand
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    import pandas as pd

LOOK_AGAIN = 1.0
"""Seconds after which the folder is looked at again."""
CALIBRATED_FILES = 64
"""Files of units that the calibration is taken over, as it has to be there at once."""
COLUMNS = ("module", "index", "polarity", "explainer", "simulator", "candidate", "text", "status", "density", *NUMBERS)
"""Of the list of units in the API."""
MOST_UNITS = 1_000
"""Rows of the list in one answer."""
MOST = 999_999_999
"""That a number in a request can be."""
Json = dict[str, Any]


class NotFoundError(UserError):
    """What is asked for is not in the run."""


class LiveRun:
    """The data of the pages and of the API. Its methods may be called in threads."""

    def __init__(self, root: Path, methods: Sequence[MethodReport], can_try: Callable[[], Mapping[str, bool]]) -> None:
        """can_try: what can be tried on the run by now, by name; the pages are told."""
        self.root, self._methods, self._can_try = root, methods, can_try
        self._lock = threading.RLock()
        self._state, self._looked = "", 0.0
        self._now = _Tables(open_run(root), methods)

    def script(self, name: str) -> str:
        """The script of data/NAME.js: `list`, `run`, `units/MODULE/INDEX` or `corpus/NUMBER`.

        Raises:
            NotFoundError: there is no such script.
        """
        try:
            with self._reading():
                value = self._value(name, self._tables())
        except NotFoundError:
            raise
        except UserError as error:
            return as_script(name, str(error), "refuse")
        return as_script(name, value)

    def _value(self, name: str, now: "_Tables") -> Any:
        kind, _, rest = name.partition("/")
        module, _, number = rest.rpartition("/")
        if name == "list":
            return now.units.as_json()
        if name == "run":
            return now.facts | {"served": {**self._can_try(), "state": self._state}}
        if kind == "corpus" and (place := as_number(rest)) is not None and "corpus" in now.run.tables:
            return corpus_file(now.run.dataset("corpus"), now.places, place)
        if kind == "units":
            return now.data.one(module, now.known(module, number))
        raise NotFoundError(f"there is no data/{name}.js")

    def describe(self) -> Json:
        """The run in the list of runs."""
        with self._reading():
            now = self._tables()
            return {
                "name": self.root.name,
                "address": f"/run/{quote(self.root.name, safe='')}/",
                "state": self._state,
                "units": now.explained,
                "tables": now.counts,
                "try": [name for name, can in self._can_try().items() if can],
            }

    def find_units(self, wanted: Mapping[str, str]) -> Json:
        """Rows of the list of units.

        Args:
            wanted: module, explainer, status and polarity to match; q to be in the explanation; sort by a column, falling with
                a - in front; limit and offset.

        Raises:
            UserError: there is no such column, or a number is none.
        """
        limit, offset = given_number(wanted, "limit", 100, MOST_UNITS), given_number(wanted, "offset", 0, MOST)
        with self._reading():
            rows = self._tables().units.rows
        for name in ("module", "explainer", "simulator", "status", "polarity"):
            if wanted.get(name):
                rows = rows[rows[name] == wanted[name]]
        if words := wanted.get("q"):
            rows = rows[rows["text"].fillna("").str.contains(words, case=False, regex=False)]
        if column := wanted.get("sort", "").removeprefix("-"):
            if column not in COLUMNS:
                raise UserError(f"sort = {column!r}; allowed: {', '.join(COLUMNS)}, each with or without a - in front")
            rows = rows.sort_values(column, ascending=not wanted["sort"].startswith("-"), kind="stable")
        part = rows.iloc[offset : offset + limit][list(COLUMNS)]
        return {"total": len(rows), "rows": json_value(part.astype(object).to_dict("records"))}

    def unit(self, module: str, number: str) -> Json:
        """The rows of all tables that a unit's page shows, as the tables have them. Raises NotFoundError: no such unit."""
        with self._reading():
            now = self._tables()
            index = now.known(module, number)
            rows = now.data.rows(module, [index])
        tables = {name: json_value(table.drop_columns(["module", "index"]).to_pylist()) for name, table in rows.items()}
        return {"module": module, "index": index, "tables": tables}

    def keep(self, unit: Unit, text: str) -> Json:
        """Save an explanation that somebody wrote.

        Raises:
            UserError: the run has no exemplars of the unit, the words are blank, or the folder cannot be written.
        """
        module, polarity, index = unit
        tables = Tables(self.root)
        if not tables.read(EXEMPLARS, tables.is_unit(module, [index], polarity), ["index"]).num_rows:
            raise UserError(
                f"the run has no exemplars of {module}/{index} ({polarity}); name a unit that it has recorded"
            )
        return self._with_state([save_by_hand(self.root, unit, text)])[0]

    def kept(self, wanted: Mapping[str, str]) -> Json:
        """The explanations that people wrote, the earliest first, of all units or of one: by `module`, by `index`."""
        number = given_number(wanted, "index", 0, MOST) if "index" in wanted else None
        found = [
            one
            for one in read_by_hand(self.root)
            if wanted.get("module") in (None, one.module) and number in (None, one.index)
        ]
        return {"explanations": self._with_state(found)}

    def _with_state(self, written: Sequence[WrittenExplanation]) -> list[Json]:
        """Explanations with whether the run has scored them by now."""
        scored: set[tuple[str, str, int, str]] = set()
        texts = list({one.text for one in written})
        for name in [method.table for method in self._tables().scored] if written else ():
            columns = ["module", "polarity", "index", "text"]
            rows = self.folder().dataset(name).to_table(columns=columns, filter=pc.field("text").isin(texts))
            scored.update(zip(*(column.to_pylist() for column in rows.columns), strict=True))
        return [asdict(one) | {"scored": (one.module, one.polarity, one.index, one.text) in scored} for one in written]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One at a time; a damaged file of the run is a UserError."""
        with self._lock, damage_named(self.root):
            yield

    def folder(self) -> RunFolder:
        """The run, to be queried."""
        return open_run(self.root)

    def _tables(self) -> "_Tables":
        """The tables as they are; what was worked out from earlier ones is let go."""
        if time.monotonic() - self._looked > LOOK_AGAIN:
            found = hashlib.sha256()
            for path in sorted(self.root.glob("[!._]*/[!._]*.parquet")):
                status = path.stat()
                found.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
            if (state := found.hexdigest()[:16]) != self._state:
                self._state, self._now = state, _Tables(open_run(self.root), self._methods)
            self._looked = time.monotonic()
        return self._now


class _Tables:
    """What is worked out from one state of the tables, once it is needed."""

    def __init__(self, run: RunFolder, methods: Sequence[MethodReport]) -> None:
        self.run, self._methods = run, methods

    @cached_property
    def scored(self) -> list[MethodReport]:
        """The methods that have scored units by now."""
        return [method for method in self._methods if method.table in self.run.tables]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows of each table."""
        return {name: self.run.dataset(name).count_rows() for name in self.run.tables}

    @cached_property
    def explained(self) -> int:
        """Units of the list, without making the list."""
        parts = [
            f"""SELECT module, "index" FROM {one.table} WHERE status <> 'not_selected' AND module <> '{NULL_UNITS}'"""
            for one in self.scored
        ]
        if not parts:
            return 0
        [(count,)] = self.run.sql(f"SELECT count(*) FROM ({' UNION '.join(parts)})").fetchall()
        return int(count)

    @cached_property
    def units(self) -> UnitList:
        if not self.scored:
            raise UserError("no unit of the run is scored yet; reload this page once the run has got that far")
        return list_units(self.run, self.scored)

    @cached_property
    def data(self) -> UnitData:
        return UnitData(self.run, self.units, in_other_runs(self.run, self.units, self._methods))

    @cached_property
    def places(self) -> "pd.DataFrame":
        return neighbours(self.run.dataset("corpus"))

    @cached_property
    def facts(self) -> Json:
        self.data.calibrate(CALIBRATED_FILES)
        return run_facts(self.run, self.scored, self.data, self.counts.get("corpus", 0))

    def known(self, module: str, number: str) -> int:
        """The index that a number stands for; raises NotFoundError where the list has no such unit."""
        index, rows = as_number(number), self.units.rows
        if index is None or not ((rows["module"] == module) & (rows["index"] == index)).any():
            raise NotFoundError(f"the run has no explained unit {module} {number}; /api/units lists those that it has")
        return index


def as_number(text: str) -> int | None:
    """A number from 0 to MOST; None for any other text."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def given_number(wanted: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number of a request. Raises UserError where it is none, or above `most`."""
    number = as_number(text := wanted.get(name, str(default)))
    if number is None or number > most:
        raise UserError(f"{name} = {text[:100]!r}; expected a number from 0 to {most:,}")
    return number
