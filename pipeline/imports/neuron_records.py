"""OpenAI's public data on neurons (Bills et al. 2023), or what is in its layout; see pipeline/exports/openai.py.

Of a neuron's sequences those between quantiles are `quantile`. Its explanations come without their scores, which are to be made anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.imports.imported_run import Import, ImportedSequence, ImportedUnit, Row

MOMENTS = ("mean", "variance", "skewness", "kurtosis", "quantile_boundaries")


def read(folder: Path) -> Iterator[ImportedUnit]:
    """See `Import`."""
    records = folder / "collated-activations"
    layers = sorted((path for path in records.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    if not layers:
        raise UserError(
            f"{records} has no folders with the numbers of layers; give the folder that holds collated-activations/LAYER/NEURON.json"
        )
    for layer in layers:
        neurons = sorted(
            (path for path in layer.glob("*.json") if path.stem.isdigit()), key=lambda path: int(path.stem)
        )
        for path in neurons:
            yield _unit(folder, layer.name, path)


def _unit(folder: Path, layer: str, path: Path) -> ImportedUnit:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        bands = [("top", record["most_positive_activation_records"]), ("random", record["random_sample"])]
        bands += [("quantile", one) for one in record.get("random_sample_by_quantile") or ()]
        sequences = [_sequence(band, one) for band, kept in bands for one in kept]
        explanations = _beside(folder / "explanations" / layer / f"{path.name}l")
        texts = [one["explanation"] for one in explanations.get("scored_explanations", [])]
        tokens = _beside(folder / "related-tokens" / "activation-based" / layer / path.name)
        statistics = {name: record.get(name) for name in MOMENTS} | {"top_tokens": _top_tokens(tokens)}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}, or what is beside it about this neuron, is not of OpenAI's layout ({type(error).__name__}: {error}); "
            "fetch it again, or take it away"
        ) from None
    kept = [one for one in sequences if one.tokens]
    return ImportedUnit(f"layers.{int(layer)}.mlp", int(path.stem), kept, texts, statistics)


def _beside(path: Path) -> dict[str, Any]:
    """The object in a file; nothing where there is no file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _sequence(band: str, record: Row) -> ImportedSequence:
    tokens, activations = list(map(str, record["tokens"])), list(map(float, record["activations"]))
    if len(tokens) != len(activations):
        raise ValueError(f"{len(tokens)} tokens with {len(activations)} activations")
    return ImportedSequence(band, tokens, activations)


def _top_tokens(tokens: Row) -> list[Row]:
    pairs = zip(tokens.get("tokens", []), tokens.get("average_activations", []), strict=True)
    return [{"token": token, "mean_activation": mean, "count": 1} for token, mean in pairs if mean is not None]


IMPORT = Import("OpenAI's public data on neurons: records and explanations", read)
