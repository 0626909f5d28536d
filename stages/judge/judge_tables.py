"""The tables of the judge stage."""

import pyarrow as pa

from pipeline.config.section import summaries
from pipeline.schemas import EXPLANATION, OUTCOME, TableSchema, column
from stages.judge import JUDGE_METHODS

_METHOD = column(
    "method", pa.string(), "; ".join(f"{name}: {summary}" for name, summary in summaries(JUDGE_METHODS).items())
)

JUDGEMENTS = TableSchema(
    "judgements",
    1,
    pa.schema(
        [
            *EXPLANATION,
            _METHOD,
            column("control", pa.string(), "empty for the explanation itself, shuffled for another unit's"),
            column("source", pa.int32(), "unit whose explanation was judged; differs from index when shuffled"),
            column("seq_id", pa.int64(), "the sequence in `corpus`"),
            column("band", pa.string(), "band of the exemplar"),
            column("fits", pa.bool_(), "the truth: the unit responds to the text, or to the marked tokens"),
            column("says", pa.bool_(), "the judge's answer"),
            column("probability", pa.float64(), "P(yes) / (P(yes) + P(no)); null without log-probabilities"),
            column("model", pa.string(), "language model that judged"),
            column("prompt_id", pa.string(), "prompt in prompts/ and its version"),
            column("prompt_tokens", pa.int32(), "tokens of the prompt; a request's first text carries all of them"),
            column("completion_tokens", pa.int32(), "tokens of the reply, likewise"),
            *OUTCOME,
        ]
    ),
    units_per_group=64,
)

EXAMPLE_SCORES = TableSchema(
    "example_scores",
    1,
    pa.schema(
        [
            *EXPLANATION,
            column("text", pa.string(), "the explanation"),
            _METHOD,
            column(
                "balanced_accuracy", pa.float64(), "mean share of right answers on both kinds of text; 0.5 by chance"
            ),
            column("f1", pa.float64(), "F1 of the yes answers"),
            column("auroc", pa.float64(), "area under the ROC curve of the probabilities; null without them"),
            column("f1_always_yes", pa.float64(), "F1 of a judge that always says yes"),
            column(
                "balanced_accuracy_shuffled", pa.float64(), "mean balanced accuracy under other units' explanations"
            ),
            column("auroc_shuffled", pa.float64(), "mean AUROC under other units' explanations"),
            column("n_shuffled", pa.int32(), "explanations of other units behind these"),
            column("n_fitting", pa.int32(), "texts that fit and were answered, report split"),
            column("n_other", pa.int32(), "texts that do not and were answered, report split"),
            *OUTCOME,
        ]
    ),
    units_per_group=64,
)
