"""The tables of SASC (Singh et al. 2023): those that people query, then the work tables in between."""

import pyarrow as pa

from pipeline.schemas import (
    EXPLANATION,
    EXPLANATION_KEYS,
    NULL_UNITS,
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

NULLS = NULL_UNITS
"""The module under which null units stand in these tables: random directions that other units are compared with."""

_ASKED = [
    column("model", pa.string(), "language model that took part, empty where none did"),
    column("prompt_id", pa.string(), "prompt in prompts/ and its version, empty where none was used"),
    column("prompt_tokens", pa.int32(), "tokens of the prompt"),
    column("completion_tokens", pa.int32(), "tokens of the reply"),
]


RESPONSES = unit_table(
    "responses",
    1,
    *UNIT,
    POLARITY,
    column("n_ngrams", pa.int64(), "n-grams with a response, NaN and infinite ones among them"),
    column("n_nonfinite", pa.int64(), "n-grams whose response was NaN or infinite"),
    column("mean", pa.float64(), "mean response to the n-grams"),
    column("sigma", pa.float64(), "standard deviation of the responses to the n-grams"),
    *OUTCOME,
    key=UNIT_KEYS,
)

NGRAMS = unit_table(
    "ngrams",
    1,
    *UNIT,
    POLARITY,
    column("rank", pa.int32(), "place by response, from 0 on; for '-' the most negative one is first"),
    column("ngram_id", pa.int64(), "number of the n-gram, by falling count in the corpus"),
    column("text", pa.string(), "the n-gram as it stands in the corpus"),
    column("n", pa.int8(), "words and punctuation marks, or tokens, in it"),
    column("count", pa.int64(), "its occurrences in the corpus"),
    column("response", pa.float64(), "the unit's response to it"),
    key=[*UNIT_KEYS, "rank"],
    refers=[Reference("responses", tuple(UNIT_KEYS))],
)

THEMES = unit_table(
    "themes",
    2,
    *EXPLANATION,
    column("text", pa.string(), "the hypothesis in words"),
    *_ASKED,
    *REPLY,
    *OUTCOME,
    column("ngrams_shown", pa.list_(pa.string()), "n-grams that it was drawn from, by rank"),
    key=EXPLANATION_KEYS,
    refers=[Reference("ngrams", tuple(UNIT_KEYS), "status = 'ok'")],
)
_OF_THEME = Reference(THEMES.name, THEMES.key)

SYNTHETIC_TEXTS = unit_table(
    "synthetic_texts",
    1,
    *EXPLANATION,
    column("kind", pa.string(), "relevant: fits the explanation; baseline: does not"),
    column("number", pa.int32(), "number of the text within its kind, from 0 on"),
    column("half", pa.string(), "select: chooses among the candidates; report: makes the published score"),
    column("text", pa.string(), "the text"),
    column("origin", pa.string(), "written by a language model, or retrieved from the corpus"),
    column("response", pa.float64(), "the unit's response to it"),
    *_ASKED,
    *OUTCOME,
    key=[*EXPLANATION_KEYS, "kind", "number"],
    refers=[_OF_THEME],
)

SASC_SCORES = unit_table(
    "sasc_scores",
    2,
    *EXPLANATION,
    column("text", pa.string(), "the explanation"),
    column(
        "score",
        pa.float64(),
        "(mean response to relevant - to baseline texts) / sigma over the n-grams, report half; sign turned for '-'",
    ),
    column("ci_low", pa.float64(), "lower end of its bootstrap interval over texts"),
    column("ci_high", pa.float64(), "upper end of its bootstrap interval over texts"),
    column("score_select", pa.float64(), "score on the select half, which chose the candidate"),
    column(
        "p_value",
        pa.float64(),
        "(1 + null units with at least this score) / (1 + null units); null for null units",
    ),
    column("null_mean", pa.float64(), "mean score of the null units of the run"),
    column("null_high", pa.float64(), "their 95 % quantile"),
    column("n_relevant", pa.int32(), "relevant texts behind the score"),
    column("n_baseline", pa.int32(), "baseline texts behind the score"),
    column("n_candidates", pa.int32(), "candidates that could be compared on the select half"),
    *OUTCOME,
    key=EXPLANATION_KEYS,
    refers=[_OF_THEME],
)

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

NGRAM_PARTIALS = unit_table(
    "ngram_partials",
    2,
    *UNIT,
    column("polarity", pa.string(), "the polarity that the responses are for; null where they are for both"),
    column("n_ngrams", pa.int64(), "n-grams with a response, NaN and infinite ones among them"),
    column("n_nonfinite", pa.int64(), "n-grams whose response was NaN or infinite"),
    column("first_nonfinite", pa.int64(), "the first n-gram with such a response; null for none"),
    column("sums", pa.list_(pa.float64()), "sums of x and of x^2, each as three terms that add up to it"),
    column("largest", _TOP, "n-grams with the largest responses, by falling response, then by ngram_id"),
    column("smallest", _TOP, "n-grams with the smallest responses, by rising response, then by ngram_id"),
    column("error", pa.string(), "why the module has no responses here; null where it has"),
    folder="_ngrams/partials",
)
