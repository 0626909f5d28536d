"""The tables of a run: one pyarrow schema and one version for each.

The meaning of every column stands in its field's metadata; `outputs/README.md` is checked against it.
"""

from dataclasses import replace

import pyarrow as pa

from pipeline.schemas.table_schema import (
    EXPLANATION,
    EXPLANATION_KEYS,
    FLOATS,
    NULL_UNITS,
    OF_EXPLANATION,
    OF_SEQUENCE,
    OUTCOME,
    POLARITY,
    REPLY,
    UNIT,
    UNIT_KEYS,
    Reference,
    TableSchema,
    column,
    unit_table,
)

__all__ = [
    "CORPUS",
    "DETAILS",
    "EXEMPLARS",
    "EXPLANATION",
    "EXPLANATIONS",
    "EXPLANATION_KEYS",
    "FLOATS",
    "JUDGED_TEXTS",
    "NEGATIVES",
    "NULL_UNITS",
    "OF_EXPLANATION",
    "OF_SEQUENCE",
    "OUTCOME",
    "POLARITY",
    "REPLY",
    "SIMULATIONS",
    "UNIT",
    "UNITS",
    "UNIT_KEYS",
    "UNIT_TOKENS",
    "Reference",
    "TableSchema",
    "column",
    "unit_table",
]

_MEANS = pa.list_(
    pa.struct(
        [
            pa.field("token_id", pa.int32()),
            pa.field("token", pa.string()),
            pa.field("mean_activation", pa.float32()),
            pa.field("count", pa.int64()),
        ]
    )
)

UNITS = unit_table(
    "units",
    2,
    *UNIT,
    column("n_tokens", pa.int64(), "tokens that the statistics are taken over"),
    column("n_nonfinite", pa.int64(), "tokens left out because their activation was NaN or infinite"),
    column("mean", pa.float64(), "mean activation"),
    column("variance", pa.float64(), "population variance"),
    column("skewness", pa.float64(), "third standardised moment"),
    column("kurtosis", pa.float64(), "fourth standardised moment, 3 for a normal distribution"),
    column("min", pa.float32(), "smallest activation"),
    column("max", pa.float32(), "largest activation"),
    column("density", pa.float64(), "share of tokens above the firing threshold"),
    column(
        "density_negative",
        pa.float64(),
        "share of tokens below minus the threshold, by the histogram; null where '-' is not recorded",
    ),
    column("histogram_edges", FLOATS, "edges of the bins, one more than bins; outer bins are open"),
    column(
        "histogram_counts",
        pa.list_(pa.int64()),
        "tokens in each bin; of dense units those of the first 128 sequences and of an eighth of the others",
    ),
    column(
        "quantile_boundaries",
        FLOATS,
        "activations at the quantiles record.quantiles of the tokens in the histogram",
    ),
    column(
        "quantile_boundaries_negative",
        FLOATS,
        "the same from below, at 1 - record.quantiles; null where '-' is not recorded",
    ),
    column("top_tokens", _MEANS, "tokens by falling mean activation, over the explain sequences only"),
    column("bottom_tokens", _MEANS, "the same by rising mean activation; null where '-' is not recorded"),
    column("top_tokens_min_count", pa.int64(), "tokens that occur less often are not considered"),
    key=["module", "index"],
)

EXEMPLARS = unit_table(
    "exemplars",
    2,
    *UNIT,
    POLARITY,
    column("band", pa.string(), "why it was kept: top, quantile or random"),
    column("rank", pa.int32(), "place within band and split, from 0 on"),
    column("seq_id", pa.int64(), "the sequence in `corpus`"),
    column("peak", pa.int32(), "position of the largest activation, of the most negative one for '-'"),
    column("max_activation", pa.float32(), "activation at the peak, as it is: negative for '-'"),
    column(
        "activations",
        FLOATS,
        "activation of every token, rounded to record.activation_bits; null where it does not count or is not finite",
    ),
    column("split", pa.string(), "explain, select or report; no sequence is in two of them"),
    key=[*UNIT_KEYS, "band", "split", "rank"],
    refers=[OF_SEQUENCE, Reference("units", ("module", "index"))],
)


def _tokens(name: str, meaning: str) -> pa.Field:
    """A list of tokens with a number for each."""
    fields = [pa.field("token_id", pa.int32()), pa.field("token", pa.string()), pa.field("value", pa.float32())]
    return column(name, pa.list_(pa.struct(fields)), meaning)


UNIT_TOKENS = unit_table(
    "unit_tokens",
    2,
    *UNIT,
    _tokens("promoted", "tokens whose logit grows most with the activation: of unembed(final norm(w_out))"),
    _tokens("suppressed", "tokens whose logit falls most, the lowest first; of polarity '-' these are promoted"),
    _tokens("input_tokens", "tokens whose embedding, normed as the unit's input, is most along its input vector"),
    column(
        "nearest",
        pa.list_(pa.struct([pa.field("index", pa.int32()), pa.field("value", pa.float32())])),
        "units of the module whose output vector is most along its own, by cosine; null where the module has over 65,536 units",
    ),
    key=["module", "index"],
)

DETAILS = unit_table(
    "details",
    1,
    *UNIT,
    POLARITY,
    column("seq_id", pa.int64(), "the sequence in `corpus`, one of the unit's exemplars"),
    column("attribution", FLOATS, "what each token adds to the activation at the peak, in the polarity"),
    column(
        "pairs",
        pa.list_(
            pa.struct([pa.field("from", pa.int32()), pa.field("to", pa.int32()), pa.field("value", pa.float32())])
        ),
        "of a head, what it writes most: the norm of what it moves from one position to another",
    ),
    key=[*UNIT_KEYS, "seq_id"],
    refers=[Reference("exemplars", (*UNIT_KEYS, "seq_id"))],
)

NEGATIVES = TableSchema(
    "negatives",
    1,
    EXEMPLARS.schema.set(
        EXEMPLARS.schema.get_field_index("band"),
        column("band", pa.string(), "similar: near by embedding; neighbour: an exemplar of a similar unit"),
    ),
    units_per_group=64,
    key=EXEMPLARS.key,
    refers=EXEMPLARS.refers,
)

CORPUS = TableSchema(
    "corpus",
    2,
    pa.schema(
        [
            column("seq_id", pa.int64(), "number of the sequence, in an order drawn by the seed; some may be missing"),
            column("split", pa.string(), "explain, select or report, the same for all sequences of a document"),
            column("doc_id", pa.string(), "document it was cut from"),
            column("start", pa.int32(), "offset of its first token in the document, in tokens"),
            column("token_ids", pa.list_(pa.int32()), "token ids, seq_len of them or fewer at a document's end"),
            column(
                "tokens",
                pa.list_(pa.string()),
                "text of each token; joined, they are the text: a character belongs to the token that ends it",
            ),
        ]
    ),
    key=("seq_id",),
)

EXPLANATIONS = unit_table(
    "explanations",
    3,
    *EXPLANATION,
    column("text", pa.string(), "the hypothesis in words"),
    column("model", pa.string(), "language model that took part, empty where none did"),
    column("prompt_id", pa.string(), "prompt in prompts/ and its version, empty where none was used"),
    column("prompt_tokens", pa.int32(), "tokens of the prompt"),
    column("completion_tokens", pa.int32(), "tokens of the reply"),
    column("dropped", pa.string(), "what the prompt left out to fit the model's context; null for nothing"),
    *REPLY,
    *OUTCOME,
    key=EXPLANATION_KEYS,
    refers=[Reference("exemplars", tuple(UNIT_KEYS), "status = 'ok'")],
)

SIMULATIONS = unit_table(
    "simulations",
    3,
    *EXPLANATION,
    column("simulator", pa.string(), "method that predicted the activations"),
    column("control", pa.string(), "empty for the explanation itself, else which control was simulated"),
    column("source", pa.int32(), "unit whose explanation was simulated; differs from index when shuffled"),
    column("source_candidate", pa.int32(), "number of that explanation among the candidates of its unit"),
    column("seq_id", pa.int64(), "the sequence in `corpus`"),
    column("split", pa.string(), "select or report"),
    column("expected", FLOATS, "expected activation of every token, 0 to 10"),
    column("coverage", FLOATS, "probability mass found on the numbers, 1 where the method has none"),
    column("model", pa.string(), "language model that took part, empty where none did"),
    column("prompt_id", pa.string(), "prompt in prompts/ and its version, empty where none was used"),
    column("prompt_tokens", pa.int32(), "tokens of the prompt; a request's first sequence carries all of them"),
    column("completion_tokens", pa.int32(), "tokens of the reply, likewise"),
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "simulator", "control", "source", "source_candidate", "seq_id"],
    refers=[
        replace(OF_EXPLANATION, where="control = ''"),
        Reference(OF_EXPLANATION.table, (*UNIT_KEYS, "explainer"), "control <> ''"),
        Reference("exemplars", (*UNIT_KEYS, "seq_id")),
    ],
)
