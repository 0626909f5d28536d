"""The tables of a run: one pyarrow schema and one version for each.

The meaning of every column stands in its field's metadata; `outputs/README.md` is checked against it.
"""

import pyarrow as pa

from pipeline.columns import EXPLANATION as _EXPLANATION
from pipeline.columns import EXPLANATION_KEYS as EXPLANATION_KEYS
from pipeline.columns import FLOATS as _FLOATS
from pipeline.columns import OUTCOME as _OUTCOME
from pipeline.columns import POLARITY as _POLARITY
from pipeline.columns import UNIT as _UNIT
from pipeline.columns import UNIT_KEYS as UNIT_KEYS
from pipeline.columns import TableSchema as TableSchema
from pipeline.columns import column as column
from pipeline.judge_schemas import EXAMPLE_SCORES as EXAMPLE_SCORES
from pipeline.judge_schemas import JUDGEMENTS as JUDGEMENTS
from pipeline.sasc_schemas import SASC_TABLES

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

CORPUS = TableSchema(
    "corpus",
    1,
    pa.schema(
        [
            column("seq_id", pa.int64(), "number of the sequence, from 0 on in the order drawn by the seed"),
            column("doc_id", pa.string(), "document it was cut from"),
            column("start", pa.int32(), "offset of its first token in the document, in tokens"),
            column("token_ids", pa.list_(pa.int32()), "token ids, seq_len of them or fewer at a document's end"),
            column("tokens", pa.list_(pa.string()), "text of each token; joined, they are the text"),
        ]
    ),
)

UNITS = TableSchema(
    "units",
    2,
    pa.schema(
        [
            *_UNIT,
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
            column("histogram_edges", _FLOATS, "edges of the bins, one more than bins; outer bins are open"),
            column(
                "histogram_counts",
                pa.list_(pa.int64()),
                "tokens in each bin; of dense units those of the first 256 sequences and of a quarter of the others",
            ),
            column(
                "quantile_boundaries",
                _FLOATS,
                "activations at the quantiles record.quantiles of the tokens in the histogram",
            ),
            column(
                "quantile_boundaries_negative",
                _FLOATS,
                "the same from below, at 1 - record.quantiles; null where '-' is not recorded",
            ),
            column("top_tokens", _MEANS, "tokens by falling mean activation, over the explain sequences only"),
            column("bottom_tokens", _MEANS, "the same by rising mean activation; null where '-' is not recorded"),
            column("top_tokens_min_count", pa.int64(), "tokens that occur less often are not considered"),
        ]
    ),
    units_per_group=64,
)

EXEMPLARS = TableSchema(
    "exemplars",
    2,
    pa.schema(
        [
            *_UNIT,
            _POLARITY,
            column("band", pa.string(), "why it was kept: top, quantile or random"),
            column("rank", pa.int32(), "place within band and split, from 0 on"),
            column("seq_id", pa.int64(), "the sequence in `corpus`"),
            column("peak", pa.int32(), "position of the largest activation, of the most negative one for '-'"),
            column("max_activation", pa.float32(), "activation at the peak, as it is: negative for '-'"),
            column(
                "activations",
                _FLOATS,
                "activation of every token, rounded to record.activation_bits; null where it does not count or is not finite",
            ),
            column("split", pa.string(), "explain, select or report; no sequence is in two of them"),
        ]
    ),
    units_per_group=64,
)


def _tokens(name: str, meaning: str) -> pa.Field:
    """A list of tokens with a number for each."""
    fields = [pa.field("token_id", pa.int32()), pa.field("token", pa.string()), pa.field("value", pa.float32())]
    return column(name, pa.list_(pa.struct(fields)), meaning)


UNIT_TOKENS = TableSchema(
    "unit_tokens",
    1,
    pa.schema(
        [
            *_UNIT,
            _tokens("promoted", "tokens whose logit grows most with the activation: of unembed(final norm(w_out))"),
            _tokens(
                "suppressed", "tokens whose logit falls most, the lowest first; of polarity '-' these are promoted"
            ),
            _tokens(
                "input_tokens", "tokens whose embedding, normed as the unit's input, is most along its input vector"
            ),
        ]
    ),
    units_per_group=64,
)

DETAILS = TableSchema(
    "details",
    1,
    pa.schema(
        [
            *_UNIT,
            _POLARITY,
            column("seq_id", pa.int64(), "the sequence in `corpus`, a `top` exemplar of the explain split"),
            column("attribution", _FLOATS, "what each token adds to the activation at the peak, in the polarity"),
            column(
                "pairs",
                pa.list_(
                    pa.struct(
                        [pa.field("from", pa.int32()), pa.field("to", pa.int32()), pa.field("value", pa.float32())]
                    )
                ),
                "of a head, what it writes most: the norm of what it moves from one position to another",
            ),
        ]
    ),
    units_per_group=64,
)

NEGATIVES = TableSchema(
    "negatives",
    1,
    EXEMPLARS.schema.set(
        EXEMPLARS.schema.get_field_index("band"),
        column("band", pa.string(), "similar: near by embedding; neighbour: an exemplar of a similar unit"),
    ),
    units_per_group=64,
)

EXPLANATIONS = TableSchema(
    "explanations",
    2,
    pa.schema(
        [
            *_EXPLANATION,
            column("text", pa.string(), "the hypothesis in words"),
            column("model", pa.string(), "language model that took part, empty where none did"),
            column("prompt_id", pa.string(), "prompt in prompts/ and its version, empty where none was used"),
            column("prompt_tokens", pa.int32(), "tokens of the prompt"),
            column("completion_tokens", pa.int32(), "tokens of the reply"),
            column("dropped", pa.string(), "what the prompt left out to fit the model's context; null for nothing"),
            *_OUTCOME,
        ]
    ),
    units_per_group=64,
)

SIMULATIONS = TableSchema(
    "simulations",
    2,
    pa.schema(
        [
            *_EXPLANATION,
            column("simulator", pa.string(), "method that predicted the activations"),
            column("control", pa.string(), "empty for the explanation itself, else which control was simulated"),
            column("source", pa.int32(), "unit whose explanation was simulated; differs from index when shuffled"),
            column("seq_id", pa.int64(), "the sequence in `corpus`"),
            column("split", pa.string(), "select or report"),
            column("expected", _FLOATS, "expected activation of every token, 0 to 10"),
            column("coverage", _FLOATS, "probability mass found on the numbers, 1 where the method has none"),
            column("model", pa.string(), "language model that took part, empty where none did"),
            column("prompt_id", pa.string(), "prompt in prompts/ and its version, empty where none was used"),
            column("prompt_tokens", pa.int32(), "tokens of the prompt; a request's first sequence carries all of them"),
            column("completion_tokens", pa.int32(), "tokens of the reply, likewise"),
            *_OUTCOME,
        ]
    ),
    units_per_group=64,
)

SCORES = TableSchema(
    "scores",
    1,
    pa.schema(
        [
            *_EXPLANATION,
            column("text", pa.string(), "the explanation"),
            column("simulator", pa.string(), "method that predicted the activations"),
            column("correlation", pa.float64(), "Pearson correlation of true and expected activations, report split"),
            column("ci_low", pa.float64(), "lower end of its bootstrap interval over sequences"),
            column("ci_high", pa.float64(), "upper end of its bootstrap interval over sequences"),
            column("correlation_random", pa.float64(), "the same over the random sequences alone"),
            column("correlation_sequence", pa.float64(), "mean of the correlations within each sequence"),
            column("r_squared", pa.float64(), "1 - mean((t-e)^2) / mean(t^2), e calibrated on select"),
            column("absolute_deviation", pa.float64(), "1 - mean|t-e| / mean|t|, e calibrated on select"),
            column("correlation_shuffled", pa.float64(), "mean correlation under other units' explanations"),
            column("n_shuffled", pa.int32(), "explanations of other units behind it"),
            column("selectivity", pa.float64(), "correlation minus correlation_shuffled"),
            column("p_value", pa.float64(), "permutation p-value of the correlation among the shuffled ones"),
            column("correlation_lookup", pa.float64(), "correlation of the token lookup table"),
            column("correlation_top_token", pa.float64(), "correlation when only the top token is named"),
            column("correlation_constant", pa.float64(), "correlation of one sentence that suits every unit"),
            column("correlation_select", pa.float64(), "correlation on the select split, which chose the candidate"),
            column("n_candidates", pa.int32(), "candidates that could be compared on the select split"),
            column("coverage", pa.float64(), "mean probability mass found on the numbers"),
            column("n_sequences", pa.int32(), "report sequences behind the correlation"),
            column("n_tokens", pa.int32(), "report tokens behind the correlation"),
            *_OUTCOME,
        ]
    ),
    units_per_group=64,
)

TABLES = {
    table.name: table
    for table in (
        CORPUS,
        UNITS,
        EXEMPLARS,
        UNIT_TOKENS,
        DETAILS,
        NEGATIVES,
        EXPLANATIONS,
        SIMULATIONS,
        SCORES,
        JUDGEMENTS,
        EXAMPLE_SCORES,
        *SASC_TABLES,
    )
}
"""The tables that people query, by name."""
