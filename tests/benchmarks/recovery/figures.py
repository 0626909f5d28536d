"""What is reported of explained modules: how often the concept is found, and what the score is worth."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from tests.benchmarks.recovery.harness import Outcome
from tests.benchmarks.recovery.modules import PUBLISHED, Encoder, Setting

ALPHA = 0.05
Figures = dict[str, float | None]


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Probability that a right candidate has the larger score than a wrong one, ties counting half; None without both."""
    kept = [(score, hit) for score, hit in zip(scores, right, strict=True) if np.isfinite(score)]
    hits = np.asarray([hit for _, hit in kept], dtype=bool)
    n_right, n_wrong = int(hits.sum()), int((~hits).sum())
    if not n_right or not n_wrong:
        return None
    ranks = rankdata([score for score, _ in kept])
    return float((ranks[hits].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def figures(outcomes: Sequence[Outcome], encoder: Encoder) -> Figures:
    """The figures of one setting and half.

    Returns:
        accuracy (of the winner), accuracy_shuffled (share of winners that match the pattern of another concept of the half,
        the mean over all others: what an explanation of something else has), any_of_5 (a hit among the candidates), unranked
        (the first candidate), similarity (cosine of the winner's and the keyword's embeddings), auc (of the score over all
        candidates of planted modules),
        shown (the concept's pattern matches one of the ten n-grams with the largest responses: who just lists them has a
        hit), null_false_discovery (share of null modules whose winner has p < ALPHA), nulls (how many there are) and discovery
        (the share of planted modules) and failed (modules of either kind without a scored explanation: misses where they are
        planted, left out of null_false_discovery and similarity); None for no module.
    """
    planted = [outcome for outcome in outcomes if outcome.concept is not None]
    nulls = [outcome for outcome in outcomes if outcome.concept is None and outcome.winner is not None]
    explained = [(o.explanation, o.concept) for o in planted if o.explanation is not None and o.concept is not None]
    right = [outcome.right() for outcome in planted]
    scores = [score for outcome in planted for score in outcome.scores]
    winners = encoder.encode([explanation for explanation, _ in explained])
    keywords = encoder.encode([concept.keyword for _, concept in explained])
    return {
        "accuracy": _mean([outcome.found for outcome in planted]),
        "accuracy_shuffled": _accuracy_shuffled(planted),
        "any_of_5": _mean([any(hits) for hits in right]),
        "unranked": _mean([any(hits[:1]) for hits in right]),
        "similarity": _mean([float(a @ b) for a, b in zip(winners, keywords, strict=True)]),
        "auc": auc(scores, [hit for hits in right for hit in hits]),
        "shown": _mean([any(map(outcome.names_concept, outcome.top)) for outcome in planted]),
        "null_false_discovery": _mean([outcome.p_value < ALPHA for outcome in nulls]),
        "nulls": len(nulls),
        "discovery": _mean([outcome.p_value < ALPHA for outcome in planted]),
        "failed": sum(outcome.winner is None for outcome in outcomes),
    }


def by_kind(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """Accuracy on each kind of concept."""
    kinds = dict.fromkeys(outcome.concept.kind for outcome in outcomes if outcome.concept)
    return {kind: _mean([o.found for o in outcomes if o.concept and o.concept.kind == kind]) for kind in kinds}


def table(found: dict[tuple[str, Setting], Figures]) -> str:
    """A line for each half and setting, with the published accuracy beside ours."""
    names = list(next(iter(found.values())))
    lines = [f"{'half':8}{'setting':12}{'published':>10}" + "".join(f"{_heading(name):>12}" for name in names)]
    for (half, setting), row in found.items():
        cells = ["-" if row[name] is None else f"{row[name]:.3f}" for name in names]
        published = f"{PUBLISHED[setting]:.3f}" if setting in PUBLISHED else "-"
        lines.append(f"{half:8}{setting:12}{published:>10}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def as_json(found: dict[tuple[str, Setting], Figures], pooled: dict[str, Figures]) -> Figures:
    """Keys such as accuracy_default and null_false_discovery for the test half, tuning_accuracy_default for the other."""
    flat: Figures = {}
    for (half, setting), row in found.items():
        prefix = "" if half == "test" else f"{half}_"
        flat |= {f"{prefix}{name}_{setting}": _rounded(value) for name, value in row.items()}
    for half, row in pooled.items():
        prefix = "" if half == "test" else f"{half}_"
        flat |= {prefix + name: _rounded(row[name]) for name in ("null_false_discovery", "nulls", "failed")}
    return flat


def _mean(values: Sequence[float] | Sequence[bool]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _heading(name: str) -> str:
    return {"null_false_discovery": "null found", "accuracy_shuffled": "shuffled"}.get(name, name)


def _accuracy_shuffled(planted: Sequence[Outcome]) -> float | None:
    """Share of winners that match another concept's pattern; a module that failed has no match, as in the accuracy."""
    concepts = {outcome.module: outcome.concept for outcome in planted}
    hits = [
        concept is not None and outcome.explanation is not None and concept.matches(outcome.explanation)
        for outcome in planted
        for module, concept in concepts.items()
        if module != outcome.module
    ]
    return _mean(hits)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
