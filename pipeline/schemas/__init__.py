"""The tables of a run: one pyarrow schema and one version for each.

The meaning of every column stands in its field's metadata; `outputs/README.md` is checked against it.
"""

import pyarrow as pa

from pipeline.schemas.columns import EXPLANATION as _EXPLANATION
from pipeline.schemas.columns import EXPLANATION_KEYS as EXPLANATION_KEYS
from pipeline.schemas.columns import FLOATS as _FLOATS
from pipeline.schemas.columns import OUTCOME as _OUTCOME
from pipeline.schemas.columns import UNIT_KEYS as UNIT_KEYS
from pipeline.schemas.columns import TableSchema as TableSchema
from pipeline.schemas.columns import column as column
from pipeline.schemas.recording import DETAILS as DETAILS
from pipeline.schemas.recording import EXEMPLARS as EXEMPLARS
from pipeline.schemas.recording import NEGATIVES as NEGATIVES
from pipeline.schemas.recording import UNIT_TOKENS as UNIT_TOKENS
from pipeline.schemas.recording import UNITS as UNITS

CORPUS = TableSchema(
    "corpus",
    1,
    pa.schema(
        [
            column("seq_id", pa.int64(), "number of the sequence, from 0 on in the order drawn by the seed"),
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
