"""Whether the p-values of a null run are even: worked out again from its tables alone.

    .venv/bin/python -m tests.integration.null_p_values outputs/null

A published p-value counts a control that does just as well among those that do better, so where explanations predict nothing at all it is
larger than chance would have it. Here each unit's is drawn evenly from its tie: from the share of controls that do better up to
the published value.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kstest

from pipeline import open_run
from pipeline.results.run_comparison import mean_interval

SAME = 1e-12
UNIT = ["module", "index", "polarity"]


def correlation(pairs: pd.DataFrame) -> float:
    """Pearson's over the tokens of simulated sequences; NaN where it is undefined."""
    true, expected = (np.concatenate([*pairs[name]]) for name in ("activations", "expected"))
    counted = np.isfinite(true) & np.isfinite(expected)
    true, expected = true[counted].astype(np.float64), expected[counted].astype(np.float64)
    if true.std() < 1e-9 or expected.std() < 1e-9:
        return np.nan
    return float(np.corrcoef(true, expected)[0, 1])


def p_values(root: Path) -> pd.DataFrame:
    """For each unit `low` and `high`: its p-value with none of the controls that do as well, and with all of them."""
    run = open_run(root)
    exemplars = run.table("exemplars").query("band in ('top', 'random')").drop_duplicates([*UNIT, "seq_id"])
    simulations = run.table("simulations").query("status == 'ok' and control in ('', 'shuffled')")
    pairs = simulations.merge(exemplars[[*UNIT, "seq_id", "activations"]], on=[*UNIT, "seq_id"])
    found = []
    for unit, rows in pairs.groupby(UNIT):
        values: dict[bool, list[float]] = {True: [], False: []}
        for (control, _), of in rows.groupby(["control", "source"]):
            candidates = [part for _, part in of.groupby("source_candidate")]
            if len(candidates) > 1:  # those that are undefined on select come last
                candidates.sort(
                    key=lambda part: -np.nan_to_num(round(correlation(part[part["split"] == "select"]), 12), nan=-2)
                )
            report = candidates[0][candidates[0]["split"] == "report"]
            values[control == ""].append(float(np.nan_to_num(correlation(report))))
        own, others = values[True][0], np.asarray(values[False])
        better, equal = (others > own + SAME).sum(), (abs(others - own) <= SAME).sum()
        found.append((*unit, own, better / (len(others) + 1), (1 + better + equal) / (len(others) + 1)))
    return pd.DataFrame(found, columns=[*UNIT, "own", "low", "high"])


def evenness(found: pd.DataFrame, seed: int = 0) -> float:
    """The p-value of the Kolmogorov-Smirnov test of p-values drawn evenly from their ties."""
    drawn = np.random.default_rng(seed).uniform(found["low"], found["high"])
    return float(kstest(drawn, "uniform").pvalue)


if __name__ == "__main__":
    every = p_values(Path(sys.argv[1]))
    tests = [evenness(every, seed) for seed in range(200)]
    low, high = mean_interval(every["own"].to_numpy())
    tied = int((every["high"] - every["low"] > every["high"].min() + SAME).sum())
    shares = ", ".join(f"{(every['high'] <= level).mean():.1%} up to {level}" for level in (0.05, 0.1, 0.5))
    sys.stdout.write(
        f"{len(every)} units, {tied} of them with ties; mean score {every['own'].mean():.4f} ({low:.4f} to {high:.4f})\n"
        f"Kolmogorov-Smirnov: p = {tests[0]:.2f}; over 200 draws from the ties, median {np.median(tests):.2f}, lowest {min(tests):.2f}\n"
        f"Published p-values: {shares}\n"
    )
