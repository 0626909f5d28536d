"""Neuronpedia's bundles: what its importer reads into its database, one folder for each module.

    v1/MODEL/LAYER-SET/release.jsonl, model.jsonl, sourceset.jsonl, source.jsonl    one line each
    v1/MODEL/LAYER-SET/features/batch-0.jsonl.gz                                    1,024 units a file
    v1/MODEL/LAYER-SET/activations/batch-0.jsonl.gz                                 the sequences of these units
    v1/MODEL/LAYER-SET/explanations/batch-0.jsonl.gz                                their explanations

The polarity '-' of units has a set of its own, SET-negative. A line is a row of its database, and its columns are the keys of a
file's first line: so all lines of a file have the same keys.
A row has the same id whenever it is exported; the importer passes over rows that it has.
"""

import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from pipeline.exports.activation_bars import bars
from pipeline.exports.exported_run import UNITS_AT_ONCE, Export, ExportedRun, kind_of, layer_of
from pipeline.exports.exported_unit import ExportedExemplar, ExportedExplanation, ExportedUnit, Row, write_json
from pipeline.schemas import CORPUS

UNITS_A_FILE = 1024
BARS = 50
LEVEL = 4
"""Of compression; with the highest an export takes half as long again and saves 7 %."""
CREATOR = "clkht01d40000jv08hvalcvly"
"""The user that every installation of Neuronpedia has, and that its own exports name."""


@dataclass(frozen=True)
class Place:
    """Where the rows of a module belong."""

    release: str
    model: str
    source_set: str
    layer: int
    identity: str
    """Tells the run from others in ids."""

    @property
    def source(self) -> str:
        return f"{self.layer}-{self.source_set}"

    def keys(self, index: int) -> Row:
        """What every row about a unit has."""
        return {"modelId": self.model, "layer": self.source, "index": str(index)}

    def id(self, *key: Any) -> str:
        """The same for the same key, and of the form of theirs."""
        text = json.dumps([self.identity, self.model, self.source, *key])
        return "c" + hashlib.sha256(text.encode()).hexdigest()[:24]


def write(run: ExportedRun, folder: Path) -> None:
    """See `Export`."""
    in_layers = [part for part in run.parts if any(layer_of(module) is not None for module in part.indices)]
    for part in in_layers or [run]:
        _write(part, folder)


def _write(run: ExportedRun, folder: Path) -> None:
    """The units of one polarity."""
    for module, layer in run.in_layers().items():
        place = _place(run, module, layer)
        target = folder / "v1" / place.model / place.source
        target.mkdir(parents=True)
        for name, row in descriptions(place, module, run).items():
            write_json(target / f"{name}.jsonl", row)
        blocks = run.blocks(module)
        for number in range(ceil(len(run.indices[module]) / UNITS_A_FILE)):
            files = {name: _Lines(target / name / f"batch-{number}.jsonl.gz") for name in _ROWS}
            for block in islice(blocks, UNITS_A_FILE // UNITS_AT_ONCE):
                for unit in run.units(module, block):
                    for name, rows in _ROWS.items():
                        files[name].add(rows(place, unit))
            for file in files.values():
                file.close()


def descriptions(place: Place, module: str, run: ExportedRun) -> dict[str, Row]:
    """The rows that say what the units are of, by file."""
    public = {"creatorId": CREATOR, "visibility": "PUBLIC"}
    name = f"{place.release}: {module} of {place.model}"
    if run.polarity == "-":
        name += ", very negative activations, shown with their sign turned"
    corpus = run.setting("corpus") or {}
    return {
        "release": {
            "name": place.release,
            "description": f"Run {place.release} of neurogloss",
            "creatorName": "neurogloss",
            "urls": [],
            **public,
        },
        "model": {
            "id": place.model,
            "displayName": place.model,
            "displayNameShort": place.model,
            "instruct": False,
            "layers": 0,
            "neuronsPerLayer": 0,
            "owner": "",
            **public,
        },
        "sourceset": {
            "modelId": place.model,
            "name": place.source_set,
            "description": name,
            "creatorName": "neurogloss",
            "releaseName": place.release,
            "urls": [],
            **public,
        },
        "source": {
            "id": place.source,
            "modelId": place.model,
            "setName": place.source_set,
            "num_prompts": run.run.dataset(CORPUS.name).count_rows() if CORPUS.name in run.run.tables else None,
            "num_tokens_in_prompt": corpus.get("seq_len"),
            "notes": name,
            **public,
        },
    }


def feature_row(place: Place, unit: ExportedUnit) -> Row:
    """What their page of a unit shows of its numbers and weights."""
    heights, values = bars(unit.statistics, BARS)
    row = {
        **place.keys(unit.index),
        "creatorId": CREATOR,
        "sourceSetName": place.source_set,
        "maxActApprox": max(unit.statistics.get("max") or 0.0, 0.0),
        "frac_nonzero": unit.statistics.get("density") or 0.0,
        "freq_hist_data_bar_heights": heights,
        "freq_hist_data_bar_values": values,
    }
    for side, name in (("pos", "promoted"), ("neg", "suppressed")):
        entries = unit.weights.get(name) or []
        row |= {f"{side}_str": [entry["token"] for entry in entries]}
        row |= {f"{side}_values": [entry["value"] or 0.0 for entry in entries]}
    return row


def activation_rows(place: Place, unit: ExportedUnit) -> list[Row]:
    """The unit's top and random sequences, each once; their page groups them by the bounds."""
    lowest, highest = (unit.statistics.get(name) or 0.0 for name in ("min", "max"))
    bounds = {"top": (-1, -1, -1), "random": (lowest, highest, 1)}
    kept = {one.seq_id: one for one in reversed(unit.exemplars) if one.band in bounds}
    return [_activation_row(place, unit, one, bounds[one.band]) for one in reversed(kept.values())]


def _activation_row(
    place: Place, unit: ExportedUnit, exemplar: ExportedExemplar, bounds: tuple[float, float, float]
) -> Row:
    values = exemplar.values
    peak = values.index(max(values))
    return {
        "id": place.id("activation", unit.index, exemplar.seq_id),
        **place.keys(unit.index),
        "creatorId": CREATOR,
        "tokens": exemplar.tokens,
        "values": values,
        "maxValue": values[peak],
        "maxValueTokenIndex": peak,
        "minValue": min(values),
        "qualifyingTokenIndex": peak,
        **dict(zip(("binMin", "binMax", "binContains"), bounds, strict=True)),
    }


def explanation_rows(place: Place, unit: ExportedUnit) -> list[Row]:
    """The unit's explanations. Their kinds of explainer and of score are a fixed list, so `notes` holds ours."""
    return [_explanation_row(place, unit, one) for one in unit.explanations]


def _explanation_row(place: Place, unit: ExportedUnit, explanation: ExportedExplanation) -> Row:
    scores = ", ".join(f"{name} {value:.3g}" for name, value in explanation.scores.items())
    explainer, candidate = explanation.keys.values()
    return {
        "id": place.id("explanation", unit.index, explainer, candidate),
        **place.keys(unit.index),
        "authorId": CREATOR,
        "description": explanation.text,
        "notes": f"explainer {explainer}" + (f"; {scores}" if scores else ""),
    }


_ROWS = {
    "features": lambda place, unit: [feature_row(place, unit)],
    "activations": activation_rows,
    "explanations": explanation_rows,
}


class _Lines:
    """A gzipped file of JSON lines. It is made with its first line, as their importer stops at an empty file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: gzip.GzipFile | None = None

    def add(self, rows: list[Row]) -> None:
        for row in rows:
            if self._file is None:
                self._path.parent.mkdir(exist_ok=True)
                self._file = gzip.GzipFile(self._path, "wb", LEVEL, mtime=0)
            self._file.write(json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _place(run: ExportedRun, module: str, layer: int) -> Place:
    model = str(run.setting("model") or run.run.root.name).split("@")[0].rstrip("/")
    fingerprints = [run.run.provenance(table).get("fingerprint") for table in run.run.tables]
    return Place(
        release=_slug(run.run.root.resolve().name),
        model=_slug(re.split("[/:]", model)[-1].lower()),
        source_set=_slug(kind_of(module) + ("-negative" if run.polarity == "-" else "")),
        layer=layer,
        identity=hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest(),
    )


def _slug(text: str) -> str:
    """A name of letters, digits, dashes and underscores, as theirs are."""
    return re.sub("[^A-Za-z0-9_]+", "-", text).strip("-") or "unnamed"


EXPORT = Export("a bundle for Neuronpedia's importer", write, has_negative=True)
