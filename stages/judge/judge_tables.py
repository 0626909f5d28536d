"""The tables of the judge stage: every judged text, and the scores of every explanation."""

import pyarrow as pa

from pipeline.config.section import summaries
from pipeline.schemas import EXPLANATION, EXPLANATION_KEYS, OF_EXPLANATION, OUTCOME, Reference, column, unit_table
from stages.judge import JUDGE_METHODS

_METHOD = column(
    "method", pa.string(), "; ".join(f"{name}: {summary}" for name, summary in summaries(JUDGE_METHODS).items())
)
_DECILES = pa.list_(pa.struct([pa.field("decile", pa.int8()), pa.field("n", pa.int32()), pa.field("yes", pa.int32())]))

JUDGEMENTS = unit_table(
    "judgements",
    2,
    *EXPLANATION,
    _METHOD,
    column("control", pa.string(), "empty for the explanation itself, shuffled for another unit's"),
    column("source", pa.int32(), "unit whose explanation was judged; differs from index when shuffled"),
    column("number", pa.int32(), "number of the text, or of the question, from 0 on"),
    column(
        "seq_id",
        pa.int64(),
        "the sequence in `corpus`; of intruder that of the text that does not belong; null for a new text",
    ),
    column(
        "band",
        pa.string(),
        "why the text was chosen: as of judged_texts and negatives, or retrieved, written, paraphrase",
    ),
    column("decile", pa.int8(), "strength of a text that fits, 1 for the strongest tenth; null for others"),
    column("fits", pa.bool_(), "the truth: the unit responds to the text, or to the marked tokens"),
    column("says", pa.bool_(), "the answer: it does; null where a method has a number alone"),
    column("probability", pa.float64(), "P(yes) / (P(yes) + P(no)); null without log-probabilities"),
    column(
        "value",
        pa.float64(),
        "the number by which texts are ranked: the probability, a cosine, or nats a token; null without",
    ),
    column("text", pa.string(), "a new text; null for one of the corpus"),
    column("model", pa.string(), "language model that judged, or embedder"),
    column("prompt_id", pa.string(), "prompt in prompts/ and its version, empty where none was used"),
    column("prompt_tokens", pa.int32(), "tokens of the prompt; a request's first text carries all of them"),
    column("completion_tokens", pa.int32(), "tokens of the reply, likewise"),
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "method", "control", "source", "number"],
    refers=[OF_EXPLANATION, Reference("corpus", ("seq_id",), "seq_id IS NOT NULL")],
)

EXAMPLE_SCORES = unit_table(
    "example_scores",
    2,
    *EXPLANATION,
    column("text", pa.string(), "the explanation"),
    _METHOD,
    column("model", pa.string(), "language model that judged, or embedder"),
    column("example_score", pa.float64(), "the method's own number: balanced accuracy, accuracy of intruder, sensitivity, or AUROC"),
    column("chance", pa.float64(), "that number for whoever knows nothing; of sensitivity the share of any texts that fire the unit"),
    column("example_score_shuffled", pa.float64(), "its mean under other units' explanations"),
    column("n_shuffled", pa.int32(), "explanations of other units behind these"),
    column("balanced_accuracy", pa.float64(), "mean share of right answers on both kinds of text; 0.5 by chance"),
    column("accuracy", pa.float64(), "share of right answers"),
    column("precision", pa.float64(), "share of the texts with the answer yes that fit"),
    column("f1", pa.float64(), "F1 of the yes answers"),
    column("auroc", pa.float64(), "area under the ROC curve of the ranking numbers; of the answers where one has none"),
    column("accuracy_always_yes", pa.float64(), "accuracy of a judge that always says yes; its balanced accuracy is 0.5"),
    column("accuracy_always_no", pa.float64(), "accuracy of a judge that always says no, likewise; its F1 is 0"),
    column("f1_always_yes", pa.float64(), "F1 of a judge that always says yes"),
    column("balanced_accuracy_shuffled", pa.float64(), "mean balanced accuracy under other units' explanations"),
    column("auroc_shuffled", pa.float64(), "mean AUROC under other units' explanations"),
    column("tp", pa.int32(), "texts that fit with the answer yes; null without answers of yes or no, as are the three below"),
    column("fp", pa.int32(), "texts that do not fit with the answer yes"),
    column("tn", pa.int32(), "texts that do not fit with the answer no"),
    column("fn", pa.int32(), "texts that fit with the answer no"),
    column("n_fitting", pa.int32(), "texts that fit and were answered, report split"),
    column("n_other", pa.int32(), "texts that do not and were answered, report split"),
    column("n_failed", pa.int32(), "texts without an answer, which count nowhere"),
    column("deciles", _DECILES, "by strength of the texts that fit, 1 for the strongest tenth: how many, and how many with a yes"),
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "method"],
    refers=[OF_EXPLANATION],
)  # fmt: skip
"""`example_score` comes first of its numbers: whoever compares runs takes that one."""
