"""The layout of OpenAI's public data on neurons (Bills et al. 2023), as their neuron viewer and neuron-explainer read it.

    collated-activations/LAYER/NEURON.json             a NeuronRecord: sequences with activations, moments, quantiles
    explanations/LAYER/NEURON.jsonl                    a NeuronSimulationResults: explanations with simulations and scores
    related-tokens/activation-based/LAYER/NEURON.json  tokens with the highest mean activation
    related-tokens/weight-based/LAYER/NEURON.json      tokens that the weights name

Their code takes the objects for dataclasses by `dataclass_name`. Fields that it may do without are left out where they are not
known, as their viewer stops at a null.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.exports.exported_run import Export, ExportedRun
from pipeline.exports.exported_unit import ExportedExemplar, ExportedExplanation, ExportedUnit, Row, write_json
from pipeline.schemas import EXEMPLARS, SIMULATIONS

DEALT_TOP = ("explain", "select", "report", "report")
"""Our splits in the order in which their code deals top records to train, calibration, valid and test."""
DEALT_RANDOM = ("select", "report", "report")
"""The same for random records, of which `train` has none."""
SCORES = {
    "ev_correlation_score": "correlation",
    "rsquared_score": "r_squared",
    "absolute_dev_explained_score": "absolute_deviation",
}
"""Their scores, and the columns of score tables that hold them."""

QUANTILES = 5
"""Lists of sequences between quantiles that their viewer shows."""

Simulations = dict[tuple[int, str, int], list[Row]]
"""Simulations by unit, explainer and candidate."""


def write(run: ExportedRun, folder: Path) -> None:
    """See `Export`."""
    run.run.files(EXEMPLARS.name)
    for layer, module in run.by_layer().items():
        folders = {
            name: folder / name / str(layer)
            for name in (
                "collated-activations",
                "explanations",
                "related-tokens/activation-based",
                "related-tokens/weight-based",
            )
        }
        for made in folders.values():
            made.mkdir(parents=True)
        for block in run.blocks(module):
            simulations = _simulations(run, module, block)
            for unit in run.units(module, block):
                neuron = _object("NeuronId", layer_index=layer, neuron_index=unit.index)
                name = f"{unit.index}.json"
                write_json(folders["collated-activations"] / name, neuron_record(neuron, unit))
                if explained := scored_explanations(unit, simulations):
                    results = _object("NeuronSimulationResults", neuron_id=neuron, scored_explanations=explained)
                    write_json(folders["explanations"] / f"{name}l", results)
                write_json(folders["related-tokens/activation-based"] / name, _by_activation(unit))
                write_json(folders["related-tokens/weight-based"] / name, _by_weights(unit))


def neuron_record(neuron: Row, unit: ExportedUnit) -> Row:
    """A NeuronRecord: all that is known of a unit without words."""
    bands: dict[str, list[ExportedExemplar]] = {"top": [], "quantile": [], "random": []}
    for one in unit.exemplars:
        bands[one.band].append(one)
    boundaries = unit.statistics.get("quantile_boundaries") or []
    quantiles: list[list[Row]] = [[] for _ in range(max(len(boundaries) + 1, QUANTILES))]
    for one in bands["quantile"]:
        quantiles[int(np.searchsorted(boundaries, one.values[one.peak], side="right"))].append(_record(one))
    moments = {name: unit.statistics.get(name) for name in ("mean", "variance", "skewness", "kurtosis")}
    return _object(
        "NeuronRecord",
        neuron_id=neuron,
        random_sample=[_record(one) for one in dealt(bands["random"], DEALT_RANDOM)],
        random_sample_by_quantile=quantiles,
        quantile_boundaries=boundaries,
        **{name: value for name, value in moments.items() if value is not None},
        most_positive_activation_records=[_record(one) for one in dealt(bands["top"], DEALT_TOP)],
    )


def dealt(exemplars: Sequence[ExportedExemplar], splits: Sequence[str]) -> list[ExportedExemplar]:
    """Exemplars in such an order that every N-th one, of N splits, is of the split in that place.

    So their code trains on what our explainers saw, and tests on what they did not. What is left over once a split has run out
    is left out. Where a split has none at all, all are kept in their order.
    """
    kept = {split: [one for one in exemplars if one.split == split] for split in splits}
    rounds = min(len(kept[split]) // splits.count(split) for split in splits)
    queues = {split: iter(held) for split, held in kept.items()}
    return [next(queues[split]) for _ in range(rounds) for split in splits] or list(exemplars)


def scored_explanations(unit: ExportedUnit, simulations: Simulations) -> list[Row]:
    """The explanations of a unit that have a correlation and simulations, as ScoredExplanation."""
    found = []
    for one in unit.explanations:
        scores = {theirs: one.scores[ours] for theirs, ours in SCORES.items() if ours in one.scores}
        simulated = _scored_sequences(unit, one, simulations)
        if "ev_correlation_score" in scores and simulated:
            simulation = _object("ScoredSimulation", scored_sequence_simulations=simulated, **scores)
            found.append(_object("ScoredExplanation", explanation=one.text, scored_simulation=simulation))
    return found


def _scored_sequences(unit: ExportedUnit, explanation: ExportedExplanation, simulations: Simulations) -> list[Row]:
    """The simulated report sequences, the top ones first, then random ones."""
    key = (unit.index, explanation.keys["explainer"], explanation.keys["candidate"])
    expected = {row["seq_id"]: row["expected"] for row in simulations.get(key, [])}
    kept = {one.seq_id: one for one in reversed(unit.exemplars) if one.band != "quantile" and one.seq_id in expected}
    return [_scored_sequence(one, expected[one.seq_id]) for one in reversed(kept.values())]


def _scored_sequence(exemplar: ExportedExemplar, expected: Sequence[float]) -> Row:
    simulation = _object(
        "SequenceSimulation",
        tokens=exemplar.tokens,
        expected_activations=[round(value, 4) for value in expected],
        activation_scale="simulated_normalized_activations",
        distribution_values=[[] for _ in expected],
        distribution_probabilities=[[] for _ in expected],
    )
    return _object(
        "ScoredSequenceSimulation",
        simulation=simulation,
        true_activations=exemplar.values,
        ev_correlation_score=_correlation(exemplar.activations, expected),
    )


def _correlation(true: Sequence[float | None], expected: Sequence[float]) -> float | None:
    """Pearson's correlation over the positions that count; None where either side does not vary, as for silent sequences."""
    counts = [place for place, value in enumerate(true) if value is not None]
    pairs = np.array([[true[place], expected[place]] for place in counts], np.float64).T
    if pairs.size == 0 or (np.ptp(pairs, axis=1) == 0).any():
        return None
    return float(np.asarray(np.corrcoef(pairs))[0, 1])


def _simulations(run: ExportedRun, module: str, indices: Sequence[int]) -> Simulations:
    """What was simulated of the explanations themselves on the report sequences."""
    where = (pc.field("split") == "report") & (pc.field("control") == "") & (pc.field("status") == "ok")
    found: Simulations = {}
    for row in run.rows(SIMULATIONS.name, module, indices, where):
        found.setdefault((row["index"], row["explainer"], row["candidate"]), []).append(row)
    return found


def _by_activation(unit: ExportedUnit) -> Row:
    tokens, means = _columns(unit.statistics.get("top_tokens"), "mean_activation")
    return _object("TokenLookupTableSummaryOfNeuron", tokens=tokens, average_activations=means)


def _by_weights(unit: ExportedUnit) -> Row:
    sides = {"input_positive": "input_tokens", "output_positive": "promoted", "output_negative": "suppressed"}
    found = {theirs: _columns(unit.weights.get(ours), "value") for theirs, ours in sides.items()}
    found["input_negative"] = ([], [])
    listed = {name: _object("TokensAndWeights", tokens=one[0], strengths=one[1]) for name, one in found.items()}
    return _object("WeightBasedSummaryOfNeuron", **listed)


def _columns(entries: Iterable[Row] | None, value: str) -> tuple[list[str], list[float]]:
    known = [entry for entry in entries or () if entry[value] is not None]
    return [entry["token"] for entry in known], [entry[value] for entry in known]


def _record(exemplar: ExportedExemplar) -> Row:
    return _object("ActivationRecord", tokens=exemplar.tokens, activations=exemplar.values)


def _object(name: str, **fields: Any) -> Row:
    """An object that their code takes for the dataclass of that name."""
    return {"dataclass_name": name, **fields}


EXPORT = Export("OpenAI's public data on neurons, for their neuron viewer and neuron-explainer", write)
