"""The folder of a run, opened from Python: its tables as pandas, pyarrow and DuckDB have them."""

import json
import re
from collections.abc import Hashable, Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.errors import UserError, nearest
from pipeline.schemas import CORPUS, TableSchema
from pipeline.storage.checked_reading import checked_dataset, damage_told
from pipeline.storage.listed_files import ListedFiles
from pipeline.storage.stores import metadata_of, place, states
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds
    from duckdb import DuckDBPyConnection, DuckDBPyRelation

    from pipeline.results.unit_view import UnitView


JSON_KEYS = {"inputs", "shard", "seconds", "failed", "profile"}
"""Keys of a footer whose values are JSON; any other value is a text, even where it looks like a number."""


class RunFolder:
    """A run's folder. Every table is read when it is asked for, so a run that goes on shows what it has by then."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed, self._stored = ListedFiles(), Tables(root)
        self._schemas: dict[str, tuple[list[Path], pa.Schema]] = {}
        self._datasets: dict[str, tuple[list[Hashable], ds.FileSystemDataset]] = {}
        self._registered: dict[str, ds.FileSystemDataset] = {}

    def __repr__(self) -> str:
        return f"<run {self.root}: {', '.join(self.tables)}>"

    @property
    def tables(self) -> list[str]:
        """Names of the tables that have rows or can get some; outputs/README.md describes each.

        >>> "scores" in open_run("outputs/demo").tables
        True
        """
        folders = (path for path in self.root.iterdir() if not path.name.startswith((".", "_")))
        return sorted(folder.name for folder in folders if self._listed.of(folder))

    def files(self, table: str) -> list[Path]:
        """The finished files of a table, in order. Raises UserError: the run has no such table.

        >>> files = open_run("outputs/demo").files("scores")
        """
        files = self._listed.of(self.root / table) if re.fullmatch("[a-z][a-z0-9_]*", table) else []
        if not files:
            raise UserError(f"{self.root} has no table {table!r}; {nearest(table, self.tables)}")
        return files

    def dataset(self, table: str) -> "ds.FileSystemDataset":
        """A table as a pyarrow dataset, which reads only the columns and units that are asked for, and compares their checksums.

        >>> import pyarrow.dataset as ds
        >>> unit = (ds.field("module") == "layers.3.mlp") & (ds.field("index") == 7)
        >>> exemplars = open_run("outputs/demo").dataset("exemplars").to_table(filter=unit)

        Raises:
            UserError: the run has no such table.
        """
        files = self.files(table)
        now = [*files, *states(files)]
        if table not in self._datasets or self._datasets[table][0] != now:
            self._datasets[table] = now, checked_dataset(files)
        return self._datasets[table][1]

    def schema(self, table: str) -> pa.Schema:
        """The columns of a table. Raises UserError: the run has no such table.

        >>> columns = open_run("outputs/demo").schema("scores").names
        """
        files = self.files(table)
        if table not in self._schemas or self._schemas[table][0] is not files:
            self._schemas[table] = files, checked_dataset(files[:1]).schema
        return self._schemas[table][1]

    def unit_rows(self, table: str, module: str, index: int, polarity: str | None = None) -> pa.Table:
        """The rows of a table about one unit, in both polarities unless one is given; files without them are not opened again.

        >>> explanations = open_run("outputs/demo").unit_rows("explanations", "layers.4.mlp", 591)

        Raises:
            UserError: the run has no such table, or its rows are not about units.
        """
        schema = self.schema(table)
        if not {"module", "index"} <= set(schema.names):
            raise UserError(f"the rows of {table} are not about units; read it with: run.table({table!r})")
        of_units = TableSchema(table, 0, schema, units_per_group=64)
        known = polarity if "polarity" in schema.names else None
        return self._stored.read(of_units, self._stored.is_unit(module, [index], known))

    def sequences(self, seq_ids: Iterable[int]) -> pa.Table:
        """seq_id and tokens of some sequences of the corpus; none where the run has none.

        >>> tokens = open_run("outputs/demo").sequences([3, 7])["tokens"]
        """
        return self._stored.numbered(CORPUS, seq_ids, ["seq_id", "tokens"])

    def table(self, name: str) -> "pd.DataFrame":
        """A whole table in memory. Raises UserError: the run has no such table, or a file of it is damaged.

        >>> explanations = open_run("outputs/demo").table("explanations")
        """
        with damage_named(self.root):
            return self.dataset(name).to_table().to_pandas()

    @property
    def scores(self) -> "pd.DataFrame":
        """The scored explanations, one row for each candidate; outputs/README.md describes the columns.

        >>> scores = open_run("outputs/demo").scores
        >>> best = scores.nlargest(5, "correlation")[["module", "index", "text", "correlation"]]
        """
        return self.table("scores")

    def sql(self, query: str) -> "DuckDBPyRelation":
        """A query over the tables of the run, each a view by its name; `.df()` of what it returns is a pandas frame.

        >>> found = open_run("outputs/demo").sql("SELECT module, avg(correlation) FROM scores GROUP BY module").df()
        """
        return self.connection.sql(query)

    @property
    def connection(self) -> "DuckDBPyConnection":
        """A DuckDB connection in which every table of the run is a view. Raises UserError: the run has no table yet.

        Checksums are compared with what is read. Files that are there by now are seen by whoever asks for it again.

        >>> [(units,)] = open_run("outputs/demo").connection.execute("SELECT count(*) FROM units").fetchall()
        """
        tables = self.tables
        if not tables:
            raise UserError(f"no table in {self.root} yet; start the run with: make run")
        for name in tables:
            if self._registered.get(name) is not (source := self.dataset(name)):
                self._connection.register(name, source)
                self._registered[name] = source
        return self._connection

    @cached_property
    def _connection(self) -> "DuckDBPyConnection":
        import duckdb

        return duckdb.connect()

    def unit(self, module: str, index: int, polarity: str = "+") -> "UnitView":
        """One unit with its statistics, explanations, scores and exemplars; a notebook shows it as a page.

        >>> unit = open_run("outputs/demo").unit("layers.4.mlp", 591)
        >>> texts = unit.exemplars[["tokens", "activations", "expected"]]

        Raises:
            UserError: the run has no such unit.
        """
        from pipeline.results.unit_view import UnitView

        return UnitView(self, module, index, polarity)

    def search(self, words: str, limit: int = 20, *, by_meaning: bool = True) -> "pd.DataFrame":
        """The explanations that fit some words, by the words themselves and by their meaning, the best first.

        The first search embeds all explanations and keeps that as the table `explanation_embeddings`. Without an embedder words alone
        count, and a warning says so.

        >>> found = open_run("outputs/demo").search("colour words", limit=5)
        >>> list(found.columns)[-3:]
        ['words', 'meaning', 'relevance']

        Raises:
            UserError: there are no words, or the run has no explanations.
        """
        from pipeline.results.explanation_search import search

        return search(self, words, limit, by_meaning)

    def compare(self, other: "RunFolder | str | Path") -> "pd.DataFrame":
        """Another run's scores against this one's, on the units that both have: means, and the mean difference with an interval.

        Rows are over all units, then by explainer, simulator, layer and module. A difference above 0 means that the other run scores
        higher. Intervals are those of a bootstrap over units.

        >>> compared = open_run("outputs/demo").compare("outputs/other")
        >>> whole = compared[compared["by"] == "all"][["score", "units", "difference", "ci_low", "ci_high"]]

        Raises:
            UserError: there is no such run, or the two have no scored unit in common.
        """
        from pipeline.results.run_comparison import compare_runs

        return compare_runs(self, _opened(other))

    def paired_scores(self, other: "RunFolder | str | Path") -> "pd.DataFrame":
        """The rows behind `compare`: one for each unit and score that both runs have, with this run's, the other's and the difference.

        >>> pairs = open_run("outputs/demo").paired_scores("outputs/other")
        >>> fallen = pairs[pairs["score"] == "correlation"].nsmallest(5, "difference")[["module", "index", "this", "other"]]

        Raises:
            UserError: as `compare`.
        """
        from pipeline.results.run_comparison import paired_scores

        return paired_scores(self, _opened(other))

    def agreements(self) -> "pd.DataFrame":
        """How far the judges, or the simulators, of this run agree: correlations of their scores over units, and Cohen's kappa of answers.

        >>> from pipeline.results.agreement import agreements
        >>> run = open_run("outputs/demo")  # one with several judges: agreed = run.agreements()

        Raises:
            UserError: it has no two that scored the same explanations.
        """
        from pipeline.results.agreement import agreements

        return agreements(self)

    def provenance(self, table: str, file: Path | None = None) -> dict[str, Any]:
        """What the footer of a table's file, by default its first, says of how it was made: settings, inputs, code and time.

        >>> commit = open_run("outputs/demo").provenance("scores")["git_commit"]
        """
        found = metadata_of(file or self.files(table)[0]).metadata or {}
        texts = {key.decode(): value.decode() for key, value in found.items() if key != b"ARROW:schema"}
        return {key: json.loads(text) if key in JSON_KEYS else text for key, text in texts.items()}


def open_run(folder: str | Path) -> RunFolder:
    """Open the folder of a run, such as outputs/demo.

    >>> from pipeline import open_run
    >>> run = open_run("outputs/demo")

    Raises:
        UserError: there is no such folder.
    """
    root = place(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; a run makes it: make run")
    return RunFolder(root)


def damage_named(*roots: Path) -> AbstractContextManager[None]:
    """Within it, what cannot be read because a file of these runs is damaged is a UserError that names the file."""
    return damage_told(file for root in roots for file in sorted(root.glob("[!._]*/[!._]*.parquet")))


def _opened(run: RunFolder | str | Path) -> RunFolder:
    return run if isinstance(run, RunFolder) else open_run(run)
