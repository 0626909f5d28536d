"""How much of a score is luck: runs of one run file that differ in their seed alone, on the same units.

The seed deals documents to splits, draws sequences and controls, and is what language models sample by. `run.units_seed` holds the units.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.provenance import read_provenance
from pipeline.results.run_folder import RunFolder, open_run
from pipeline.results.score_tables import ScoreTable, read, score_tables
from pipeline.schemas import NULL_UNITS, UNIT_KEYS

if TYPE_CHECKING:
    import pandas as pd


def repeated(config: RunConfig, number: int) -> RunConfig:
    """The run file of a repeat: the next seed but `number`, the same units, and a folder beside the run's; number 0 is the run itself."""
    if not number:
        return config
    run = config.run
    units_seed = run.seed if run.units_seed is None else run.units_seed
    seed = run.seed + number
    changed = {"seed": seed, "units_seed": units_seed, "name": f"{run.name}-seed{seed}"}
    return config.model_copy(update={"run": run.model_copy(update=changed)})


def repeats_of(root: Path) -> list[Path]:
    """The run in a folder and the runs beside it whose run files differ from its own in the seed and the name alone, by seed.

    It is alone where the folder does not keep how it was made.
    """
    own = _but_for_seed(root)
    if own is None:
        return [root]
    beside = [folder for folder in root.parent.iterdir() if folder.is_dir() and folder.name != root.name]
    found = [root, *(folder for folder in beside if _but_for_seed(folder) == own)]
    return sorted(found, key=lambda folder: (_seed(folder), folder.name))


def _but_for_seed(root: Path) -> dict[str, Any] | None:
    """The run file that a folder keeps, without seed and name; None where it keeps none that can be read."""
    try:
        kept = read_provenance(root)
    except UserError:
        return None
    if kept is None:
        return None
    run = {name: value for name, value in kept["run_file"].get("run", {}).items() if name != "name"}
    seed, held = run.pop("seed", 0), run.pop("units_seed", None)
    return {**kept["run_file"], "run": {**run, "units_seed": seed if held is None else held}}


def _seed(root: Path) -> int:
    kept = read_provenance(root)
    return int(kept["run_file"].get("run", {}).get("seed", 0)) if kept else 0


def spread(roots: Sequence[Path]) -> "pd.DataFrame":
    """Each number of the scores over several runs of the same units.

    Returns:
        A row for each `score`, by table, explainer and what else tells scores apart. `mean` is over the `units` that all runs have the
        number of, `sd` the standard deviation of that mean over the `runs`, and `sd_unit` that of a single unit's number, from its mean
        variance.

    Raises:
        UserError: fewer than two runs, or one of them has no scores.
    """
    import pandas as pd

    if len(roots) < 2:
        raise UserError(f"{roots[0]} has no repeats beside it; they are made by: python -m pipeline repeat")
    runs = [open_run(root) for root in roots]
    rows: list[dict[str, Any]] = []
    for table in score_tables(runs[0]):
        methods = ["explainer", *table.methods]
        values = pd.concat([_values(run, table) for run in runs], axis=1).dropna()
        for (score, *names), part in values.groupby(level=["score", *methods], sort=False):
            over_runs = part.mean()
            sds = float(over_runs.std()), float(np.sqrt(part.var(axis=1).mean()))
            numbers = {"mean": float(over_runs.mean()), "sd": sds[0], "sd_unit": sds[1]}
            by = dict(zip(methods, names, strict=True))
            rows.append({"score": score, **by, **numbers, "units": len(part), "runs": len(runs)})
    return pd.DataFrame(rows)


def _values(run: RunFolder, table: ScoreTable) -> "pd.Series[float]":
    """The numbers of a table of scores by score, unit and method; of several candidates with a score, of the explainer's favourite."""
    keys = [*UNIT_KEYS, "explainer", *table.methods]
    rows = read(run, table.name, [*keys, "candidate", *table.numbers]).dropna(subset=table.score)
    rows = rows[rows["module"] != NULL_UNITS].sort_values([*keys, "candidate"]).drop_duplicates(keys)
    return rows.melt(id_vars=keys, value_vars=list(table.numbers), var_name="score").set_index(["score", *keys])[
        "value"
    ]


def luck(root: Path, table: str = "") -> list[str]:
    """What the repeats of a run say of its scores, or of those of one table, in words; nothing where there are none."""
    roots = [one for one in repeats_of(root) if score_tables(open_run(one))]
    if len(roots) < 2 or root not in roots:
        return []
    found, scores = spread(roots), {one.score for one in score_tables(open_run(root)) if table in ("", one.name)}
    return [
        f"Over {row['runs']} runs with other seeds ({row['explainer']}): mean {row['score']} {row['mean']:.3f}, standard deviation "
        f"{row['sd']:.3f}; that of one unit {row['sd_unit']:.3f} ({row['units']} units)"
        for row in found.to_dict("records")
        if row["score"] in scores
    ]
