"""Labels and features of transcoders for circuit-tracer's attribution graphs.

    labels.json               the explanation of each feature, by the number that graphs call it (`feature` of a node)
    features/index.json.gz    for each layer its file, and where each feature begins in it
    features/layer_3.bin      for each feature 4 bytes with a length, little-endian, and that much gzipped JSON

Their viewer fetches a feature by its range of bytes: from `features/` of a repository on the hub, or from the folder that
`serve(features_dir=...)` names. Nodes of a graph carry labels themselves, as `clerp`; docs/exports.md shows how to put them in.
"""

import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.exports.activation_bars import bars, percentiles
from pipeline.exports.exported_run import Export, ExportedRun
from pipeline.exports.exported_unit import ExportedExemplar, ExportedUnit, Row, write_json

BARS = 50
LEVEL = 4
"""Of compression."""
TITLES = {"top": "Top activations", "quantile": "Between quantiles", "random": "Random sequences"}
NOT_EXPORTED = {"isDead": True}
"""What their viewer shows as a feature that could not be loaded."""


def write(run: ExportedRun, folder: Path) -> None:
    """See `Export`."""
    (folder / "features").mkdir()
    labels: dict[str, str] = {}
    index = {}
    for layer, module in run.by_layer().items():
        file = folder / "features" / f"layer_{layer}.bin"
        offsets, texts = _write_layer(run, module, file)
        index[str(layer)] = {"filename": file.name, "offsets": offsets}
        labels |= {str(graph_number(layer, number)): text for number, text in texts.items()}
    (folder / "features" / "index.json.gz").write_bytes(_zipped(index))
    write_json(folder / "labels.json", labels)


def _write_layer(run: ExportedRun, module: str, path: Path) -> tuple[list[int], dict[int, str]]:
    """Write the features of a layer: where each begins, with the end of the last, and the labels of those that have one.

    Features of the layer that are not exported have an entry too, as features are found by their number.
    """
    offsets, texts = [0], {}
    with path.open("wb") as file:
        for block in run.blocks(module):
            for unit in run.units(module, block):
                between = [NOT_EXPORTED] * (unit.index - len(offsets) + 1)
                for one in (*between, feature(f"{run.run.root.name}/{module}", unit)):
                    data = _zipped(one)
                    file.write(struct.pack("<I", len(data)) + data)
                    offsets.append(file.tell())
                if unit.explanations:
                    texts[unit.index] = unit.explanations[0].text
    return offsets, texts


def feature(source: str, unit: ExportedUnit) -> Row:
    """What their viewer shows of a feature, their class `frontend.feature_models.Model`.

    Args:
        source: run and module.
    """
    groups = [(title, [one for one in unit.exemplars if one.band == band]) for band, title in TITLES.items()]
    highest = unit.statistics.get("max") or 0.0
    return {
        "transcoder_id": source,
        "index": unit.index,
        "examples_quantiles": [
            {"quantile_name": title, "examples": [_example(one) for one in kept]} for title, kept in groups if kept
        ],
        "top_logits": [entry["token"] for entry in unit.weights.get("promoted") or ()],
        "bottom_logits": [entry["token"] for entry in unit.weights.get("suppressed") or ()],
        "act_min": 0.0,
        "act_max": highest if highest > 0 else 1.0,
        "quantile_values": percentiles(unit.statistics),
        "histogram": bars(unit.statistics, BARS)[0],
        "activation_frequency": unit.statistics.get("density") or 0.0,
    }


def graph_number(layer: int, number: int) -> int:
    """The number that stands for a feature of a layer in graphs: Cantor's pairing of the two."""
    return (layer + number) * (layer + number + 1) // 2 + number


def _example(exemplar: ExportedExemplar) -> Row:
    return {
        "tokens": exemplar.tokens,
        "tokens_acts_list": exemplar.values,
        "train_token_ind": exemplar.peak,
        "is_repeated_datapoint": False,
    }


def _zipped(value: Mapping[str, Any]) -> bytes:
    return gzip.compress(json.dumps(value, allow_nan=False, separators=(",", ":")).encode(), LEVEL, mtime=0)


EXPORT = Export("labels and features of transcoders, for the attribution graphs of circuit-tracer", write)
