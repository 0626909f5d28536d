"""Neuronpedia's bundles; see pipeline/exports/neuronpedia.py. A folder of one source, or one that holds several.

Sequences are sorted by their largest activation. Those that the bundle says to be of an interval are `quantile`, unless the
interval holds everything: then they are `random`.
"""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.imports.imported_run import Import, ImportedSequence, ImportedUnit, Row
from pipeline.subjects.module_kinds import WITHIN

SOURCE = re.compile(r"(?P<layer>\d+)(?:-(?P<set>.+))?")


def read(folder: Path) -> Iterator[ImportedUnit]:
    """See `Import`."""
    sources = sorted({path.parent.parent for path in folder.rglob("activations/batch-*.jsonl.gz")}, key=_layer)
    if not sources:
        raise UserError(
            f"{folder} has no activations/batch-N.jsonl.gz; give a folder of a source, such as v1/MODEL/LAYER-SET, or one that holds some"
        )
    for source in sources:
        yield from _units(source)


def _units(source: Path) -> Iterator[ImportedUnit]:
    module = module_of(source.name)
    texts: dict[int, list[str]] = {}
    for row in (row for path in _batches(source / "explanations") for row in _lines(path)):
        texts.setdefault(int(row["index"]), []).append(row["description"])
    known: set[int] = set()
    for path in _batches(source / "activations"):
        rows: dict[int, list[Row]] = {}
        for row in _lines(path):
            rows.setdefault(int(row["index"]), []).append(row)
        if twice := known & rows.keys():
            raise UserError(
                f"{path} has sequences of unit {min(twice)}, as an earlier batch has; put them into one batch"
            )
        known |= rows.keys()
        for index, found in sorted(rows.items()):
            found.sort(key=lambda row: -max(row["values"]))
            sequences = [ImportedSequence(_band(row), row["tokens"], row["values"]) for row in found]
            yield ImportedUnit(module, index, sequences, texts.get(index, []))


def module_of(source: str) -> str:
    """The module that a source such as 15-mlp or 6-res-jb stands for. Raises UserError: it does not begin with a layer."""
    match = SOURCE.fullmatch(source)
    if match is None:
        raise UserError(f"the folder {source!r} should be called LAYER-SET, such as 6-res-jb")
    kind = match["set"] or "mlp"
    plain = kind in WITHIN and not WITHIN[kind].section
    return f"layers.{int(match['layer'])}.{kind if plain else f'sae:{kind}'}"


def _band(row: Row) -> str:
    if row.get("binMin") in (None, -1):
        return "top"
    return "random" if row.get("binContains") == 1 else "quantile"


def _batches(folder: Path) -> list[Path]:
    return sorted(folder.glob("batch-*.jsonl.gz"), key=lambda path: int(re.sub(r"\D", "", path.name)))


def _lines(path: Path) -> Iterator[Row]:
    """The rows of a file that are about a unit. Raises UserError: it is no gzipped JSON, or a row lacks what it needs."""
    needed = {"activations": ("index", "tokens", "values"), "explanations": ("index", "description")}[path.parent.name]
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row: Row = json.loads(line)
                if any(name not in row for name in needed) or len(row.get("tokens", ())) != len(row.get("values", ())):
                    raise ValueError(f"line {number} needs {', '.join(needed)}, as many values as tokens")
                if row.get("tokens", True):
                    yield row
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no batch of a Neuronpedia bundle ({error}); fetch it again") from None


def _layer(source: Path) -> tuple[int, str]:
    match = SOURCE.fullmatch(source.name)
    return (int(match["layer"]) if match else -1, source.name)


IMPORT = Import("bundles of Neuronpedia: activations and explanations", read)
