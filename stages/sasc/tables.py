"""The tables of the SASC stages: those that are queried, and the work tables in between."""

import pyarrow as pa

from pipeline.schemas.columns import UNIT, TableSchema, column
from pipeline.schemas.ngrams import NGRAMS, RESPONSES, SASC_SCORES, SYNTHETIC_TEXTS, THEMES

__all__ = ["NGRAMS", "NGRAM_LIST", "NGRAM_PARTIALS", "RESPONSES", "SASC_SCORES", "SYNTHETIC_TEXTS", "THEMES"]

NGRAM_LIST = TableSchema(
    "ngram_list",
    1,
    pa.schema(
        [
            column("ngram_id", pa.int64(), "number of the n-gram, from 0 on by falling count, then by text"),
            column("text", pa.string(), "its commonest form in the corpus, with its inner spacing"),
            column("n", pa.int8(), "words and punctuation marks, or tokens, in it"),
            column("count", pa.int64(), "its occurrences in the corpus, in any form"),
        ]
    ),
    folder="_ngrams/list",
)

_TOP = pa.list_(pa.struct([pa.field("ngram_id", pa.int64()), pa.field("response", pa.float64())]))

NGRAM_PARTIALS = TableSchema(
    "ngram_partials",
    2,
    pa.schema(
        [
            *UNIT,
            column("polarity", pa.string(), "the polarity that the responses are for; null where they are for both"),
            column("n_ngrams", pa.int64(), "n-grams with a response, NaN and infinite ones among them"),
            column("n_nonfinite", pa.int64(), "n-grams whose response was NaN or infinite"),
            column("first_nonfinite", pa.int64(), "the first n-gram with such a response; null for none"),
            column("sums", pa.list_(pa.float64()), "sums of x and of x^2, each as three terms that add up to it"),
            column("largest", _TOP, "n-grams with the largest responses, by falling response, then by ngram_id"),
            column("smallest", _TOP, "n-grams with the smallest responses, by rising response, then by ngram_id"),
            column("error", pa.string(), "why the module has no responses here; null where it has"),
        ]
    ),
    units_per_group=64,
    folder="_ngrams/partials",
)
