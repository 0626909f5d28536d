"""How well answers agree with the truth: counts, shares of right answers, F1, area under the ROC curve, and what knowing nothing gives.

Shapes: N items with an answer.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.judge.example_scorer import ExampleScorer, UnitTexts
from stages.judge.text_choice import DECILES

if TYPE_CHECKING:
    import pandas as pd

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
COLUMNS = ["source", "control", "fits", "says", "value", "decile", "error"]
FLOORS = ("accuracy_always_yes", "accuracy_always_no", "f1_always_yes")


def scores(rows: Sequence[Mapping[str, Any]], scorer: ExampleScorer, unit: UnitTexts, controls: int) -> dict[str, Any]:
    """The numbers of an explanation from its rows of `judgements`: what has no answer is left out, never counted as wrong or right."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=COLUMNS)
    failed = table["error"].notna()
    answered = table[~failed]
    own, others = answered[answered["control"] == ""], answered[answered["control"] != ""]
    found = agreement(own)
    under = [agreement(part) for _, part in others.groupby("source")]
    names = ("balanced_accuracy", "auroc", scorer.number)
    means = {name: _mean([one[name] for one in under]) for name in names}
    if scorer.number != "balanced_accuracy":
        found |= dict.fromkeys(FLOORS, np.nan)
    errors = table.loc[failed & (table["control"] == ""), "error"]
    return {
        **found,
        "example_score": found[scorer.number],
        "chance": unit.share_firing if scorer.chance is None else scorer.chance,
        "example_score_shuffled": means[scorer.number],
        "balanced_accuracy_shuffled": means["balanced_accuracy"],
        "auroc_shuffled": means["auroc"],
        "n_shuffled": controls,
        "n_fitting": int(own["fits"].sum()),
        "n_other": len(own) - int(own["fits"].sum()),
        "n_failed": len(errors),
        "deciles": by_decile(own),
        **_outcome(found[scorer.number], errors.tolist()),
    }


def agreement(answered: "pd.DataFrame") -> dict[str, float]:
    """Every measure of some answers; NaN, or None for a count, where one is not defined.

    Args:
        answered: items with `fits`, the truth, `says`, the answer or None, and `value`, by which they are ranked.
    """
    truth = answered["fits"].to_numpy(dtype=bool)
    says, values = answered["says"], answered["value"].to_numpy(dtype=np.float64)
    found: dict[str, Any] = dict.fromkeys(("tp", "fp", "tn", "fn"))
    found |= dict.fromkeys(("accuracy", "balanced_accuracy", "precision", "f1", *FLOORS), np.nan)
    if len(truth) and says.notna().all():
        yes = says.to_numpy(dtype=bool)
        found |= _counted(truth, yes)
        values = values if np.isfinite(values).all() else yes.astype(np.float64)
    return {**found, "auroc": auroc(values[truth], values[~truth])}


def _counted(truth: Bools, yes: Bools) -> dict[str, Any]:
    """Measures of answers of yes or no; (N,) each."""
    tp, fp, tn, fn = (int(part.sum()) for part in (truth & yes, ~truth & yes, ~truth & ~yes, truth & ~yes))
    found: dict[str, Any] = {"tp": tp, "fp": fp, "tn": tn, "fn": fn, "accuracy": (tp + tn) / len(truth)}
    found["precision"] = tp / (tp + fp) if tp + fp else np.nan
    if truth.all() or not truth.any():
        return found
    share = float(truth.mean())
    return found | {
        "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "accuracy_always_yes": share,
        "accuracy_always_no": 1 - share,
        "f1_always_yes": 2 * share / (1 + share),
    }


def auroc(fitting: Floats, others: Floats) -> float:
    """The share of pairs in which the one that fits has the larger value, ties counting half.

    NaN without both kinds, or where a value is not finite.
    """
    from scipy.stats import rankdata

    values = np.concatenate([fitting, others])
    if not (len(fitting) and len(others) and np.isfinite(values).all()):
        return np.nan
    below = rankdata(values)[: len(fitting)].sum() - len(fitting) * (len(fitting) + 1) / 2
    return float(below / (len(fitting) * len(others)))


def by_decile(answered: "pd.DataFrame") -> list[dict[str, int]]:
    """For each strength of the texts that fit, how many have an answer and to how many it is yes; without answers of yes or no, none is."""
    found = []
    for decile in range(1, DECILES + 1):
        of = answered[answered["decile"] == decile]
        if len(of):
            found.append({"decile": decile, "n": len(of), "yes": int((of["says"] == True).sum())})  # noqa: E712 - or None
    return found


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def _outcome(score: float, errors: Sequence[str]) -> dict[str, Any]:
    """Status and error; what was left out is named."""
    if np.isfinite(score):
        return {"status": "ok", "error": f"{len(errors)} texts are left out: {errors[0]}" if errors else None}
    if errors:
        return {"status": "failed", "error": errors[0]}
    return {"status": "undefined", "error": "there are not both texts that fit and texts that do not"}
