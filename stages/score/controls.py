"""The same unit under other explanations: shuffled ones, with selectivity and p-value, and single controls."""

import numpy as np
import pyarrow as pa

from pipeline.schemas import column
from stages.score.scorer import Explained, Scorer
from stages.statistics import permutation_p

SINGLE_CONTROLS = ("lookup", "top_token", "constant")


def score(explained: Explained) -> dict[str, float]:
    """Correlations of the controls on the report split, and what they say of the explanation's own."""
    controls, value = explained.controls, explained.report.correlation
    kinds = controls.rows["control"]
    shuffled = controls.where(kinds == "shuffled")
    sources = np.unique(shuffled.rows["source"])
    values = np.array([shuffled.where(shuffled.rows["source"] == source).correlation for source in sources])
    known = values[np.isfinite(values)]
    mean = float(known.mean()) if known.size else np.nan
    return {
        "correlation_shuffled": mean,
        "n_shuffled": int(known.size),
        "selectivity": value - mean,
        "p_value": permutation_p(value, values),
        **{f"correlation_{name}": controls.where(kinds == name).correlation for name in SINGLE_CONTROLS},
    }


SCORER = Scorer(
    "correlations under other explanations, and the share of them that do as well",
    (
        column("correlation_shuffled", pa.float64(), "mean correlation under other units' explanations"),
        column("n_shuffled", pa.int32(), "explanations of other units behind it"),
        column("selectivity", pa.float64(), "correlation minus correlation_shuffled"),
        column("p_value", pa.float64(), "permutation p-value of the correlation among the shuffled ones"),
        column("correlation_lookup", pa.float64(), "correlation of the token lookup table"),
        column("correlation_top_token", pa.float64(), "correlation when only the top token is named"),
        column("correlation_constant", pa.float64(), "correlation of one sentence that suits every unit"),
    ),
    score,
)
