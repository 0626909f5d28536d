"""Explanations and scores as Delphi keeps them: a file of JSON for each latent.

    explanations/layers.3.mlp_latent7.txt        the explanation, a string; that of the polarity '-' is of layers.3.mlp.negative
    scores/METHOD/layers.3.mlp_latent7.txt       the texts that a judge was asked about, with its answers

`explanation_loader` and the explainer `none` read the first, `delphi.log.result_analysis` the second. Simulations are left out, as that
reader takes every file below scores/ for a judge's.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc

from pipeline.exports.exported_run import Export, ExportedRun
from pipeline.exports.exported_unit import ExportedExemplar, ExportedUnit, Row, write_json
from pipeline.schemas import EXEMPLARS

JUDGED = {"method", "control", "seq_id", "fits", "says", "probability"}
"""Columns of a table of texts that a judge was asked about."""
KEPT = {"seq_id", "band", "rank", "split", "activations"}
"""Columns of a table of sequences kept for units."""
DISTANCE = -1
"""What their files say of an example's quantile or distance where it is not known."""


def write(run: ExportedRun, folder: Path) -> None:
    """See `Export`."""
    (folder / "explanations").mkdir()
    for part in run.parts:
        _write(part, folder)


def _write(run: ExportedRun, folder: Path) -> None:
    """The units of one polarity."""
    for module in run.indices:
        for block in run.blocks(module):
            judged = _judged(run, module, block)
            asked = [run.exemplars(name, module, block) for name in _kept(run)] if judged else []
            for unit in run.units(module, block):
                if unit.explanations:
                    hook = module if run.polarity == "+" else f"{module}.negative"
                    name = f"{latent(hook, unit.index)}.txt"
                    write_json(folder / "explanations" / name, unit.explanations[0].text)
                    for method, answers in _answers(
                        unit, judged, [one for found in asked for one in found.get(unit.index, [])]
                    ).items():
                        (folder / "scores" / method).mkdir(parents=True, exist_ok=True)
                        write_json(folder / "scores" / method / name, answers)


def latent(module: str, index: int) -> str:
    """How Delphi names a unit in file names."""
    return f"{module}_latent{index}".replace("/", "--").replace(":", ".")


def _judged(run: ExportedRun, module: str, indices: Sequence[int]) -> list[Row]:
    """The texts of the corpus that judges said yes or no to, with the explanations themselves."""
    tables = [name for name in run.run.tables if run.columns(name) >= JUDGED]
    own = (pc.field("control") == "") & pc.field("says").is_valid() & pc.field("seq_id").is_valid()
    return [row for name in tables for row in run.rows(name, module, indices, own)]


def _kept(run: ExportedRun) -> list[str]:
    """Tables beside the exemplars that hold sequences with their activations."""
    return [name for name in run.run.tables if run.columns(name) >= KEPT and name != EXEMPLARS.name]


def _answers(unit: ExportedUnit, judged: Sequence[Row], asked: Sequence[ExportedExemplar]) -> dict[str, list[Row]]:
    """By method of judging, the answers on the unit's best explanation."""
    sequences = {one.seq_id: one for one in (*unit.exemplars, *asked)}
    keys = {"index": unit.index, **unit.explanations[0].keys}
    found: dict[str, list[Row]] = {}
    for row in judged:
        if all(row[name] == value for name, value in keys.items()):
            found.setdefault(row["method"], []).append(_answer(row, sequences[row["seq_id"]]))
    return found


def _answer(row: Row, exemplar: ExportedExemplar) -> Row:
    """Their `ClassifierOutput`."""
    says, fits = row["says"], row["fits"]
    return {
        "str_tokens": exemplar.tokens,
        "activations": exemplar.values,
        "distance": DISTANCE,
        "activating": fits,
        "prediction": says,
        "probability": row["probability"],
        "correct": None if says is None else says == fits,
    }


EXPORT = Export("explanations and judged texts as files of Delphi", write, has_negative=True)
