"""The tables of the record stages; `pipeline.schemas` lists them with the others."""

import pyarrow as pa

from pipeline.schemas.columns import FLOATS as _FLOATS
from pipeline.schemas.columns import POLARITY as _POLARITY
from pipeline.schemas.columns import UNIT as _UNIT
from pipeline.schemas.columns import TableSchema, column

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
                "tokens in each bin; of dense units those of the first 128 sequences and of an eighth of the others",
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
            column("seq_id", pa.int64(), "the sequence in `corpus`, one of the unit's exemplars"),
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
