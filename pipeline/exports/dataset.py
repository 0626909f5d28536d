"""A dataset for the Hugging Face hub: the tables of a run as they are, and a card that describes them.

`datasets.load_dataset(FOLDER, TABLE)` opens a table; without TABLE it opens the scores.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.execution.provenance import FILE, shown_provenance
from pipeline.exports.exported_run import Export, ExportedRun, float_columns
from pipeline.results.run_caveats import caveats_of
from pipeline.results.run_folder import RunFolder
from pipeline.storage.checked_reading import DamagedFileError, damage_of

FOOTER = ("created_by", "git_commit")


def write(run: ExportedRun, folder: Path) -> None:
    """See `Export`."""
    for table in run.run.tables:
        (folder / table).mkdir()
        for file in run.run.files(table):
            if reason := damage_of(file):
                raise DamagedFileError(file, reason)
            with file.open("rb") as source, (folder / table / file.name).open("wb") as copy:
                shutil.copyfileobj(source, copy)
    made = shown_provenance(run.run.root)
    if made is not None:
        for machine in made["machines"]:
            machine.pop("host", None)
        (folder / FILE).write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(run), encoding="utf-8")


def card(run: ExportedRun) -> str:
    """The README.md of the dataset: its tables as configurations, its figures, where it comes from, its columns."""
    name = run.run.root.resolve().name
    tables = run.run.tables
    first = next(iter(run.score_tables), tables[0])
    head = [
        "---",
        f"pretty_name: {_quoted(name)}",
        "tags:",
        "- interpretability",
        "- automated-interpretability",
        "configs:",
    ]
    for table in tables:
        head += [f"- config_name: {table}", f"  data_files: {table}/*.parquet"]
        head += ["  default: true"] if table == first else []
    intro = (
        f"Units of a language model ({run.setting('model') or 'see the settings below'}), explained in words, and the words scored, "
        "by neurogloss. Each table is a configuration; they join by module, index and polarity."
    )
    parts = [
        "\n".join([*head, "---"]),
        f"# {name}",
        intro,
        *(f"**{words}.**" for words in caveats_of(run.run.root)),
        "## Figures",
        _rows_of(run.run),
    ]
    parts += [
        part for table in run.score_tables for part in (f"Means in `{table}`, by module:", _means(run.run, table))
    ]
    beside = f" `{FILE}` has the whole run file, the machines and their packages, and what each stage took."
    told = "What the first file of each table says of how it was made."
    parts += ["## Provenance", told + (beside if (run.run.root / FILE).is_file() else ""), _provenance(run.run)]
    parts += ["## Columns", *(part for table in tables for part in (f"### `{table}`", _columns(run.run, table)))]
    return "\n\n".join(parts) + "\n"


def _rows_of(run: RunFolder) -> str:
    counts = [[f"`{table}`", f"{run.dataset(table).count_rows():,}"] for table in run.tables]
    return _table(["table", "rows"], counts)


def _means(run: RunFolder, table: str) -> str:
    """Means of the headline score and of the columns that begin like it: its parts and its controls."""
    headline, *others = float_columns(run.dataset(table).schema)
    names = [headline, *(name for name in others if name.startswith(headline))]
    means = ", ".join(f"printf('%.3f', avg(\"{name}\"))" for name in names)
    rows = run.sql(
        f'SELECT module, count(DISTINCT "index"), count("{headline}"), {means} FROM "{table}" GROUP BY module ORDER BY module'
    ).fetchall()
    return _table(["module", "units", "scored", *names], [[str(cell) for cell in row] for row in rows])


def _provenance(run: RunFolder) -> str:
    rows = []
    for table in run.tables:
        said = run.provenance(table)
        settings = json.dumps(said.get("inputs", {}).get("settings", {}), ensure_ascii=False)
        rows.append([f"`{table}`", *(str(said.get(key, "")) for key in ("schema", *FOOTER)), f"`{settings}`"])
    return _table(["table", "schema", *FOOTER, "settings"], rows)


def _columns(run: RunFolder, table: str) -> str:
    schema: pa.Schema = run.dataset(table).schema
    rows = [
        [
            f"`{field.name}`",
            str(field.type).replace("element: ", ""),
            (field.metadata or {}).get(b"meaning", b"").decode(),
        ]
        for field in schema
    ]
    return _table(["column", "type", "meaning"], rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ([cell.replace("|", "\\|") for cell in line] for line in (heading, ["---"] * len(heading), *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _quoted(text: str) -> str:
    """A string of YAML."""
    return "'" + text.replace("'", "''") + "'"


EXPORT = Export("the tables of the run with a card, for the Hugging Face hub and `datasets`", write, has_negative=True)
